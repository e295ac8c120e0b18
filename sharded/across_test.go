package sharded_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/rediscontract"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAcrossHubs(t *testing.T) { rediscontract.RunAcross(t, cluster(t).Client, newAdapter) }

func TestHubsOfProcesses(t *testing.T) {
	rediscontract.RunProcesses(t, redistest.Rounds(2, 5), cluster(t), newAdapter)
}

// Questions in a room whose slot is moving are answered: by the hubs that the
// slot's server knows by then. Commands reach all hubs. Who is in the room does
// not change meanwhile.
func TestQuestionsWhileASlotMoves(t *testing.T) {
	c := cluster(t)
	const room = "moving"
	var hubs []*fanout.Hub
	var left sync.Map // who was said to leave
	for i := range 3 {
		a, err := newAdapter(c.Client(t))
		require.NoError(t, err)
		h, err := fanout.New(a, &fanout.Options{
			Prefix: "moving", Room: func(string) fanout.RoomOptions { return fanout.RoomOptions{Presence: true} },
		})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, h.Close(within(t))) })
		m, err := h.Connect(&fanout.MemberOptions{User: fmt.Sprint("user ", i)})
		require.NoError(t, err)
		require.NoError(t, h.Room(room).Join(within(t), m))
		go func() {
			for msg, err := range m.Messages(t.Context()) {
				if change, ok := msg.Presence(); ok && err == nil {
					for _, p := range change.Left {
						left.Store(p.User, true)
					}
				}
			}
		}()
		hubs = append(hubs, h)
	}
	stop := make(chan struct{})
	var asking sync.WaitGroup
	asked := 0
	asking.Go(func() {
		for ; ; asked++ {
			select {
			case <-stop:
				return
			default:
			}
			began := time.Now()
			n, err := hubs[0].In(room).Count(within(t))
			if !assert.NoError(t, err) {
				return
			}
			assert.LessOrEqual(t, n, 3)
			assert.Less(t, time.Since(began), 10*time.Second)
		}
	})
	slot := redistest.Slot("moving:r:{" + room + "}")
	for i := range 4 {
		from := c.Owner(slot)
		next := fmt.Sprint("elsewhere ", i)
		to := c.Primaries()[slices.IndexFunc(c.Primaries(), func(n *redistest.Node) bool { return n != from })]
		moved := make(chan error, 1)
		go func() { moved <- c.MigrateSlot(t.Context(), from, to, slot) }()
		require.NoError(t, hubs[0].In(room).Join(within(t), next))
		redistest.Must(t, <-moved)
		require.NoError(t, hubs[0].In(room).Join(within(t), next+", moved"))
		for _, other := range []string{next, next + ", moved"} { // a command reaches all, a move or not
			n, err := hubs[1].In(other).Count(within(t))
			require.NoError(t, err)
			require.Equal(t, 3, n, other)
		}
	}
	close(stop)
	asking.Wait()
	require.Positive(t, asked)
	require.Eventually(t, func() bool {
		n, err := hubs[0].In(room).Count(within(t))
		return err == nil && n == 3
	}, 20*time.Second, 10*time.Millisecond)
	left.Range(func(user, _ any) bool {
		t.Errorf("%v was said to have left", user)
		return true
	})
}
