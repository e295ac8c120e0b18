package fanout_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/require"
)

// keeping returns options for hubs whose rooms keep the given number of
// messages.
func keeping(messages int) *fanout.Options {
	return &fanout.Options{Room: func(room string) fanout.RoomOptions {
		if strings.HasPrefix(room, "plain") {
			return fanout.RoomOptions{}
		}
		return fanout.RoomOptions{Retain: fanout.Retention{Messages: messages, Age: time.Hour}}
	}}
}

// position returns the position of the room's latest message.
func position(t testing.TB, r *fanout.Room) fanout.Position {
	t.Helper()
	all, err := r.History(within(t), fanout.Position{}, 0)
	require.NoError(t, err)
	require.NotEmpty(t, all)
	return all[len(all)-1].Position
}

// sortGap puts the gap of an interruption last: it comes before the first of
// what was read.
func sortGap(got []string) []string {
	if i := slices.Index(got, "gap 0+"); i >= 0 {
		got = append(slices.Delete(got, i, i+1), "gap 0+")
	}
	return got
}

func texts(all []fanout.Message) (list []string) {
	for _, m := range all {
		list = append(list, string(m.Data))
	}
	return list
}

func TestResumeGoesOnWithoutASeam(t *testing.T) {
	for _, adapter := range []bool{false, true} {
		var bus *memory.Bus
		if adapter {
			bus = memory.NewBus()
		}
		a := newHub(t, bus, keeping(10000))
		b := a
		if adapter {
			b = newHub(t, bus, keeping(10000))
		}
		const total = 3000
		var published sync.WaitGroup
		published.Go(func() {
			for n := 1; n <= total; n++ {
				if err := a.Room("x").Publish(context.Background(), fmt.Append(nil, n)); err != nil {
					t.Error(err)
				}
			}
		})
		// A client that comes and goes, now here, now there.
		var got []string
		var at fanout.Position
		hubs := []*fanout.Hub{a, b}
		for visit := 0; len(got) < total; visit++ {
			h := hubs[visit%2]
			m, err := h.Connect(nil)
			require.NoError(t, err)
			require.NoError(t, h.Room("x").Resume(within(t), m, at))
			for range min(visit%7*40, total-len(got)) {
				msg, err := m.Receive(within(t))
				if err != nil {
					t.Logf("visit %d to %v from %v has got %d: %v", visit, h.ID(), at, len(got), got[max(0, len(got)-5):])
				}
				got = append(got, show(t, msg, err))
				at = msg.Position
			}
			require.NoError(t, m.Close())
		}
		published.Wait()
		require.Equal(t, numbers(1, total), got)
	}
}

func TestResumeSaysWhatWasTrimmed(t *testing.T) {
	bus := memory.NewBus()
	a, b := newHub(t, bus, keeping(10)), newHub(t, bus, keeping(10))
	publish(t, a.Room("x"), 1, 5)
	at := position(t, a.Room("x"))
	publish(t, a.Room("x"), 6, 30)
	for _, h := range []*fanout.Hub{a, b} {
		m := connect(t, h)
		require.NoError(t, h.Room("x").Resume(within(t), m, at))
		require.Equal(t, append([]string{"gap 15"}, numbers(21, 30)...), receive(t, m, 11))
		newcomer := connect(t, h)
		require.NoError(t, h.Room("x").Resume(within(t), newcomer, fanout.Position{}))
		require.Equal(t, numbers(21, 30), receive(t, newcomer, 10), "a member that was never there has missed nothing")
		messages, err := h.Room("x").History(within(t), at, 3)
		require.Equal(t, &fanout.GapError{Room: "x", Missed: 15}, err)
		require.Equal(t, numbers(21, 23), texts(messages))
	}
}

// Age counts as well, also for what the hub holds itself.
func TestResumeHandsOutNothingTooOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		h := newHub(t, bus, keeping(100)) // for an hour
		stays := connect(t, h, "x")
		publish(t, h.Room("x"), 1, 5)
		at := position(t, h.Room("x"))
		publish(t, h.Room("x"), 6, 10)
		time.Sleep(40 * time.Minute)
		publish(t, h.Room("x"), 11, 15)
		time.Sleep(40 * time.Minute)
		m, newcomer := connect(t, h), connect(t, h)
		require.NoError(t, h.Room("x").Resume(within(t), m, at))
		require.Equal(t, append([]string{"gap 5"}, numbers(11, 15)...), receive(t, m, 6))
		require.NoError(t, h.Room("x").Resume(within(t), newcomer, fanout.Position{}))
		require.Equal(t, numbers(11, 15), receive(t, newcomer, 5))
		require.Equal(t, numbers(1, 15), receive(t, stays, 15))

		time.Sleep(2 * time.Hour) // the room is empty, but knows where it was
		m = connect(t, h)
		require.NoError(t, h.Room("x").Resume(within(t), m, at))
		require.Equal(t, []string{"gap 10"}, receive(t, m, 1))
	})
}

func TestResumeOfAThousandAsksOnce(t *testing.T) {
	for name, keep := range map[string]int{"all of it fits into the window": 200, "more is kept": 5000} {
		t.Run(name, func(t *testing.T) {
			bus := memory.NewBus()
			a, b := newHub(t, bus, keeping(keep)), newHub(t, bus, keeping(keep))
			publish(t, a.Room("x"), 1, 50)
			all, err := a.Room("x").History(within(t), fanout.Position{}, 0)
			require.NoError(t, err)
			publish(t, a.Room("x"), 51, 60)
			var reads atomic.Int32
			gate := make(chan struct{})
			bus.InterceptReads(func(_ context.Context, _ string, q adapter.Query) error {
				if q.Limit > 0 {
					reads.Add(1)
					<-gate
				}
				return nil
			})
			members := make([]*fanout.Member, 1000)
			var resumed sync.WaitGroup
			for i := range members {
				members[i] = connect(t, b)
				resumed.Go(func() {
					if err := b.Room("x").Resume(within(t), members[i], all[9].Position); err != nil {
						t.Error(err)
					}
				})
			}
			require.Eventually(t, func() bool { return reads.Load() == 1 }, 10*time.Second, time.Millisecond)
			close(gate)
			resumed.Wait()
			for _, m := range members {
				require.Equal(t, numbers(11, 60), receive(t, m, 50))
			}
			// Members that come later find it here.
			for i := range 50 {
				m := connect(t, b)
				require.NoError(t, b.Room("x").Resume(within(t), m, all[9+i%40].Position))
				require.Equal(t, numbers(11+i%40, 60), receive(t, m, 50-i%40))
			}
			require.EqualValues(t, 1, reads.Load())
		})
	}
}

// Each of many asks for another position, and all at once: two readings are
// enough.
func TestResumeOfManyFromEverywhereAsksTwice(t *testing.T) {
	bus := memory.NewBus()
	o := keeping(5000)
	a, b := newHub(t, bus, o), newHub(t, bus, o)
	publish(t, a.Room("x"), 1, 1000)
	all, err := a.Room("x").History(within(t), fanout.Position{}, 0)
	require.NoError(t, err)
	var reads atomic.Int32
	gate := make(chan struct{})
	bus.InterceptReads(func(_ context.Context, _ string, q adapter.Query) error {
		if q.Limit > 0 && reads.Add(1) == 1 {
			<-gate
		}
		return nil
	})
	var resumed sync.WaitGroup
	members := make([]*fanout.Member, 500)
	for i := range members {
		members[i] = connect(t, b)
		resumed.Go(func() {
			if err := b.Room("x").Resume(within(t), members[i], all[2*(i*7919%500)].Position); err != nil {
				t.Error(err)
			}
		})
		if i == 0 {
			require.Eventually(t, func() bool { return reads.Load() == 1 }, 10*time.Second, time.Millisecond)
		}
	}
	<-time.After(50 * time.Millisecond) // those who are later may need a third
	close(gate)
	resumed.Wait()
	for i, m := range members {
		from := 2*(i*7919%500) + 2
		require.Equal(t, numbers(from, 1000), receive(t, m, 1001-from))
	}
	require.LessOrEqual(t, reads.Load(), int32(3))
}

// A client's new hub may lag behind its old one.
func TestResumeOfAClientThatIsAheadOfItsNewHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		slow := bus.NewAdapter()
		a, b := newHub(t, bus, keeping(100)), newHubOn(t, slow, keeping(100))
		m := connect(t, a, "x")
		connect(t, b, "x")
		publish(t, a.Room("x"), 1, 3)
		synctest.Wait()
		slow.CutSubscriber()
		publish(t, a.Room("x"), 4, 8)
		var at fanout.Position
		for range 6 {
			msg, err := m.Receive(within(t))
			require.NoError(t, err)
			at = msg.Position
		}
		// b's link is back, but reading what it missed takes long.
		gate := make(chan struct{})
		first := true
		bus.InterceptReads(func(ctx context.Context, _ string, q adapter.Query) error {
			if first {
				first = false
				<-gate
			}
			return nil
		})
		slow.Heal()
		synctest.Wait()
		client := connect(t, b)
		resumed := make(chan error)
		go func() { resumed <- b.Room("x").Resume(within(t), client, at) }()
		synctest.Wait()
		close(gate)
		require.NoError(t, <-resumed)
		publish(t, a.Room("x"), 9, 9)
		require.Equal(t, numbers(7, 9), receive(t, client, 3))
	})
}

func TestResumeAfterAHistoryWentBack(t *testing.T) {
	bus := memory.NewBus()
	a, b := newHub(t, bus, keeping(100)), newHub(t, bus, keeping(100))
	publish(t, a.Room("x"), 1, 10)
	at := position(t, a.Room("x"))
	bus.Failover(3, false)
	publish(t, a.Room("x"), 11, 12)
	m := connect(t, b)
	require.NoError(t, b.Room("x").Resume(within(t), m, at))
	require.Equal(t, []string{"gap 0+", "11", "12"}, receive(t, m, 3))

	// A history that moved whole causes no gap.
	at = position(t, a.Room("x"))
	bus.Failover(0, true)
	publish(t, a.Room("x"), 13, 14)
	m = connect(t, b)
	require.NoError(t, b.Room("x").Resume(within(t), m, at))
	require.Equal(t, numbers(13, 14), receive(t, m, 2))

	// All of it is gone.
	bus.Flush()
	publish(t, a.Room("x"), 15, 15)
	c := newHub(t, bus, keeping(100))
	m = connect(t, c)
	require.NoError(t, c.Room("x").Resume(within(t), m, at))
	require.Equal(t, []string{"gap 0+", "15"}, receive(t, m, 2))
}

func TestResumeBadInput(t *testing.T) {
	bus := memory.NewBus()
	h := newHub(t, bus, keeping(100))
	publish(t, h.Room("x"), 1, 3)
	publish(t, h.Room("y"), 1, 3)
	x, y := position(t, h.Room("x")), position(t, h.Room("y"))
	m := connect(t, h)
	ahead := fanout.Position{Epoch: x.Epoch, Offset: x.Offset + 1}
	for _, c := range []struct {
		room string
		at   fanout.Position
		is   error
		says string
	}{
		{"x", y, fanout.ErrInvalidPosition, "another room"},
		{"x", fanout.Position{Offset: 3}, fanout.ErrInvalidPosition, "without an epoch"},
		{"x", ahead, fanout.ErrInvalidPosition, "ahead"},
		{"plain", fanout.Position{}, fanout.ErrNoHistory, "Options.Room"},
		{"", fanout.Position{}, fanout.ErrInvalidRoom, "empty"},
	} {
		err := h.Room(c.room).Resume(within(t), m, c.at)
		require.ErrorIs(t, err, c.is)
		require.ErrorContains(t, err, c.says)
		_, err = h.Room(c.room).History(within(t), c.at, 0)
		require.ErrorIs(t, err, c.is)
	}
	require.Empty(t, m.Rooms())
	_, err := h.Room("x").History(within(t), x, -1)
	require.ErrorIs(t, err, fanout.ErrInvalidOption)
	require.ErrorContains(t, err, "limit is -1")
	require.ErrorIs(t, h.Room("x").Resume(within(t), nil, x), fanout.ErrInvalidMember)
	require.NoError(t, h.Room("x").Resume(within(t), m, x))
	require.ErrorIs(t, h.Room("x").Resume(within(t), m, x), fanout.ErrJoined)
	publish(t, h.Room("x"), 4, 4)
	require.Equal(t, numbers(4, 4), receive(t, m, 1), "nothing of it did any harm")
}

func TestParsePosition(t *testing.T) {
	for _, p := range []fanout.Position{{}, {1, 0}, {1, 2}, {1<<64 - 1, 1<<64 - 1}} {
		got, err := fanout.ParsePosition(p.String())
		require.NoError(t, err)
		require.Equal(t, p, got)
	}
	require.Equal(t, "v1-7-9", fanout.Position{Epoch: 7, Offset: 9}.String())
	for _, s := range []string{
		"", "1", "1-2", "v1", "v1-", "v1-1", "v1-1-", "v1--1", "v1-1-2-3", "v1-01-2", "v1-+1-2", "v1-1 -2", "v1-0-1", "V1-1-2", " v1-1-2",
		"v1-1-18446744073709551616", "v1-" + strings.Repeat("9", 500), strings.Repeat("9", 500), "v1-１-２",
	} {
		_, err := fanout.ParsePosition(s)
		require.ErrorIs(t, err, fanout.ErrInvalidPosition, s)
		require.ErrorContains(t, err, "is not v1-epoch-offset")
		require.Less(t, len(err.Error()), 400)
	}
	_, err := fanout.ParsePosition("v2-abc")
	require.ErrorIs(t, err, fanout.ErrInvalidPosition)
	require.ErrorContains(t, err, `"v2-abc" is of version v2, and this release reads v1`)
}

func TestPositionInJSON(t *testing.T) {
	type message struct{ Since fanout.Position }
	p := fanout.Position{Epoch: 1<<63 + 1, Offset: 9}
	text, err := json.Marshal(message{p})
	require.NoError(t, err)
	require.Equal(t, `{"Since":"v1-9223372036854775809-9"}`, string(text))
	var m message
	require.NoError(t, json.Unmarshal(text, &m))
	require.Equal(t, p, m.Since)
	require.ErrorIs(t, json.Unmarshal([]byte(`{"Since":"9"}`), &m), fanout.ErrInvalidPosition)
}

func TestHistoryLeavesOutWhatWasVolatile(t *testing.T) {
	h := newHub(t, memory.NewBus(), keeping(100))
	m, witness := connect(t, h, "x"), connect(t, h, "x")
	publish(t, h.Room("x"), 1, 1)
	require.NoError(t, h.In("x").Volatile().Publish(within(t), []byte("pointer")))
	publish(t, h.Room("x"), 2, 2)
	for receive(t, witness, 1)[0] != "2" { // a member that comes before it is here is not late for it
	}
	other := connect(t, h)
	require.NoError(t, h.Room("x").Resume(within(t), other, fanout.Position{}))
	require.Equal(t, numbers(1, 2), receive(t, other, 2))
	all, err := h.Room("x").History(within(t), fanout.Position{}, 0)
	require.NoError(t, err)
	require.Equal(t, numbers(1, 2), texts(all))
	require.Equal(t, "1", receive(t, m, 1)[0])
}

// If a backend refuses to read the history, members in the room get a gap and
// continue, and a Join fails with the reason.
func TestHistoryRefused(t *testing.T) {
	bus := memory.NewBus()
	node := bus.NewAdapter()
	h := newHubOn(t, node, keeping(100))
	m := connect(t, h, "x")
	refused := fmt.Errorf("no rights: %w", fanout.ErrRefused)
	bus.InterceptReads(func(context.Context, string, adapter.Query) error { return refused })
	publish(t, h.Room("x"), 1, 1)
	node.CutSubscriber()
	node.Heal()
	require.Equal(t, []string{"1", "gap 0+"}, receive(t, m, 2))
	publish(t, h.Room("x"), 2, 2)
	require.Equal(t, numbers(2, 2), receive(t, m, 1))
	require.ErrorIs(t, h.Room("y").Join(within(t), connect(t, h)), fanout.ErrRefused)
	_, err := h.Room("y").History(within(t), fanout.Position{}, 0)
	require.ErrorIs(t, err, fanout.ErrRefused)
	bus.InterceptReads(nil)
	require.NoError(t, h.Room("y").Join(within(t), connect(t, h)), "it is asked again")
}

// Rooms without a history are as they were, next to those that have one.
func TestHistoryIsForThoseRoomsOnly(t *testing.T) {
	bus := memory.NewBus()
	node := bus.NewAdapter()
	h := newHubOn(t, node, keeping(100))
	m := connect(t, h, "plain")
	publish(t, h.Room("plain"), 1, 1)
	msg, err := m.Receive(within(t))
	require.NoError(t, err)
	require.Zero(t, msg.Position)
	node.CutSubscriber()
	publish(t, h.Room("plain"), 2, 2)
	node.Heal()
	require.Equal(t, []string{"gap 0+"}, receive(t, m, 1), "as soon as the link is back")
	require.Zero(t, h.Stats().Reads)
}

// Messages that members had before they were in the history (LocalFallback, or
// a server that went back) are there for members that come later.
func TestResumeGetsWhatOthersHadBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		node := bus.NewAdapter()
		o := keeping(100)
		o.LocalFallback = true
		h := newHubOn(t, node, o)
		m := connect(t, h, "x")
		publish(t, h.Room("x"), 1, 2)
		at := position(t, h.Room("x"))
		node.CutInbound()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, h.Room("x").Publish(ctx, []byte("3")), fanout.ErrLocalOnly)
		require.Equal(t, numbers(1, 3), receive(t, m, 3))
		node.Heal()
		publish(t, h.Room("x"), 4, 4)
		require.Equal(t, numbers(4, 4), receive(t, m, 1))
		late := connect(t, h)
		require.NoError(t, h.Room("x").Resume(within(t), late, at))
		require.Equal(t, numbers(3, 4), receive(t, late, 2))
	})
}

// A client comes to a hub that lags behind. It has had elsewhere the messages
// that have been trimmed meanwhile, and those that this hub will find missing.
func TestResumeOnAHubThatLagsIsNotToldOfItsGaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		deaf := bus.NewAdapter()
		a, b := newHub(t, bus, keeping(10)), newHubOn(t, deaf, keeping(10))
		stays := connect(t, b, "x")
		publish(t, a.Room("x"), 1, 5)
		require.Equal(t, numbers(1, 5), receive(t, stays, 5))
		bus.Intercept(func(context.Context, memory.Frame) memory.Fate {
			return memory.Fate{Miss: []*memory.Adapter{deaf}}
		})
		publish(t, a.Room("x"), 6, 50)
		bus.Intercept(nil)
		at := position(t, a.Room("x"))
		m := connect(t, b)
		require.NoError(t, b.Room("x").Resume(within(t), m, at))
		publish(t, a.Room("x"), 51, 52)
		require.Equal(t, numbers(51, 52), receive(t, m, 2))
		require.Equal(t, append([]string{"gap 35"}, numbers(41, 52)...), receive(t, stays, 13))
	})
}

// Messages that were read across the end of an epoch in which some were lost do
// not hide the loss from members that come later.
func TestResumeOfManyAcrossALoss(t *testing.T) {
	bus := memory.NewBus()
	a, b := newHub(t, bus, keeping(100)), newHub(t, bus, keeping(100))
	publish(t, a.Room("x"), 1, 5)
	at := position(t, a.Room("x"))
	publish(t, a.Room("x"), 6, 9)
	bus.Failover(2, false) // 8 and 9
	publish(t, a.Room("x"), 10, 12)
	for range 3 {
		m := connect(t, b)
		require.NoError(t, b.Room("x").Resume(within(t), m, at))
		require.Equal(t, []string{"6", "7", "gap 0+", "10", "11", "12"}, receive(t, m, 6))
		first := connect(t, b)
		require.NoError(t, b.Room("x").Resume(within(t), first, fanout.Position{}))
		require.Equal(t, append(numbers(1, 7), numbers(10, 12)...), receive(t, first, 10))
	}
}

// A server comes back with an old history from its disk: members get nothing
// from before the position with which they resume.
func TestResumeAfterAHistoryThatForgotTheEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		a, b := newHub(t, bus, keeping(100)), newHub(t, bus, keeping(100))
		publish(t, a.Room("x"), 1, 5)
		at := position(t, a.Room("x"))
		const second = 1000 << 20 // between epochs
		for range 2 {
			time.Sleep(2 * time.Second)
			bus.Failover(0, false)
		}
		publish(t, a.Room("x"), 6, 7)
		m := connect(t, b)
		between := fanout.Position{Epoch: at.Epoch + second, Offset: at.Offset + 7}
		require.NoError(t, b.Room("x").Resume(within(t), m, between))
		require.Equal(t, []string{"gap 0+", "6", "7"}, receive(t, m, 3))
		messages, err := a.Room("x").History(within(t), between, 0)
		require.Equal(t, &fanout.GapError{Room: "x", Unknown: true}, err)
		require.Equal(t, numbers(6, 7), texts(messages))
		future := fanout.Position{Epoch: at.Epoch + 9*second, Offset: 1}
		messages, err = a.Room("x").History(within(t), future, 0)
		require.Equal(t, &fanout.GapError{Room: "x", Unknown: true}, err)
		require.Empty(t, messages)
	})
}

// A gap in what a member gets from the history does not displace what it has
// taken from another room.
func TestResumeKeepsWhatIsThereOfOtherRooms(t *testing.T) {
	bus := memory.NewBus()
	a, b := newHub(t, bus, keeping(100)), newHub(t, bus, keeping(100))
	m := connect(t, b, "plain")
	publish(t, a.Room("x"), 1, 1)
	at := position(t, a.Room("x"))
	require.NoError(t, a.In("x").Except(m.ID()).Publish(within(t), []byte("not for m")))
	publish(t, a.Room("x"), 2, 2)
	bus.Failover(1, false)
	publish(t, a.Room("x"), 3, 3)
	witness := connect(t, b, "plain")
	publish(t, b.Room("plain"), 7, 9)
	require.Equal(t, numbers(7, 9), receive(t, witness, 3))
	require.NoError(t, b.Room("x").Resume(within(t), m, at))
	var got []string
	buf := make([]fanout.Message, 16)
	for len(got) < 5 {
		n, err := m.ReceiveBatch(within(t), buf)
		if err != nil {
			got = append(got, show(t, fanout.Message{}, err))
		}
		got = append(got, texts(buf[:n])...)
	}
	require.ElementsMatch(t, []string{"7", "8", "9", "gap 0+", "3"}, got)
}

// A member that resumes at a position of a future epoch still receives
// messages.
func TestResumeFromAnEpochToCome(t *testing.T) {
	h := newHub(t, nil, keeping(100))
	publish(t, h.Room("x"), 1, 3)
	at := position(t, h.Room("x"))
	m := connect(t, h)
	require.NoError(t, h.Room("x").Resume(within(t), m, fanout.Position{Epoch: at.Epoch + 1<<50, Offset: 5}))
	publish(t, h.Room("x"), 4, 5)
	require.Equal(t, []string{"gap 0+", "4", "5"}, receive(t, m, 3))
}

// A member that leaves a room stops waiting for its history.
func TestLeaveEndsTheWaitForHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		o := keeping(1000)
		o.Window = fanout.Window{Messages: 4}
		h := newHub(t, bus, o)
		m, fast := connect(t, h, "x", "plain"), connect(t, h, "x")
		publish(t, h.Room("x"), 1, 100)
		require.Equal(t, numbers(1, 100), receive(t, fast, 100))
		time.Sleep(5 * time.Second) // until the room holds no more than its window again
		gate := make(chan struct{})
		bus.InterceptReads(func(ctx context.Context, _ string, _ adapter.Query) error {
			<-gate
			return nil
		})
		got := make(chan []string)
		go func() { got <- receive(t, m, 1) }()
		synctest.Wait()
		require.NoError(t, h.Room("x").Leave(t.Context(), m))
		publish(t, h.Room("plain"), 7, 7)
		require.Equal(t, numbers(7, 7), <-got)
		close(gate)
	})
}

// blockReads has the readings of a room's history wait until the function that
// it returns is called.
func blockReads(bus *memory.Bus, room string) (unblock func()) {
	gate := make(chan struct{})
	bus.InterceptReads(func(ctx context.Context, channel string, q adapter.Query) error {
		if q.Limit > 0 && strings.Contains(channel, "{"+room+"}") {
			select {
			case <-gate:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	return sync.OnceFunc(func() { close(gate) })
}

// A member that fell out of a room's window receives from its other rooms while
// the history is read.
func TestAMemberThatIsRefilledHearsItsOtherRooms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		o := keeping(1000)
		o.Window.Messages = 8
		h := newHub(t, bus, o)
		m := connect(t, h, "busy", "quiet")
		publish(t, h.Room("busy"), 1, 100)
		synctest.Wait() // until all of it has come, and the window has gone on
		unblock := blockReads(bus, "busy")
		defer unblock()
		for n := range 3 {
			text := fmt.Sprint("quiet ", n)
			require.NoError(t, h.Room("quiet").Publish(within(t), []byte(text)))
			require.Equal(t, []string{text}, receive(t, m, 1))
		}
		unblock()
		require.Equal(t, numbers(1, 100), receive(t, m, 100))
		publish(t, h.Room("busy"), 101, 102)
		require.Equal(t, numbers(101, 102), receive(t, m, 2))

		// A member that leaves meanwhile gets none of it, and others are not
		// disturbed.
		publish(t, h.Room("busy"), 103, 200)
		time.Sleep(5 * time.Second) // until the room holds no more than its window again
		defer blockReads(bus, "busy")()
		require.NoError(t, h.Room("quiet").Publish(within(t), []byte("before")))
		require.Equal(t, []string{"before"}, receive(t, m, 1))
		require.NoError(t, h.Room("busy").Leave(within(t), m))
		require.NoError(t, h.Room("quiet").Publish(within(t), []byte("after")))
		require.Equal(t, []string{"after"}, receive(t, m, 1))
		nothing(t, h, m)
	})
}

// However many rooms wait for a server that does not answer, those of others
// are read at once.
func TestHistoriesThatCannotBeReadDoNotHoldUpOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		h := newHub(t, bus, keeping(10))
		bus.InterceptReads(func(_ context.Context, channel string, _ adapter.Query) error {
			if strings.Contains(channel, "down") {
				return errors.New("the cluster is down")
			}
			return nil
		})
		waiting, giveUp := context.WithCancel(t.Context())
		var joining sync.WaitGroup
		for n := range 2000 {
			m := connect(t, h)
			joining.Go(func() {
				if err := h.Room(fmt.Sprint("down ", n)).Join(waiting, m); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		}
		time.Sleep(10 * time.Second) // of the test's own time: all are tried again by now, at long intervals
		begun := time.Now()
		connect(t, h, "up")
		require.Zero(t, time.Since(begun))
		giveUp()
		joining.Wait()
	})
}

// A member that still reads what it resumed with does not count as slow.
func TestResumeOfMuchIsNotSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		o := keeping(1000)
		o.Window.Messages, o.Overflow = 8, fanout.Disconnect
		h := newHub(t, bus, o)
		publish(t, h.Room("x"), 1, 100)
		m, slow := connect(t, h), connect(t, h)
		require.NoError(t, h.Room("x").Resume(within(t), m, fanout.Position{}))
		publish(t, h.Room("x"), 101, 200)
		time.Sleep(time.Minute) // all of it is in the log, and what is too old is cut off
		require.Equal(t, numbers(1, 200), receive(t, m, 200))
		publish(t, h.Room("x"), 201, 201)
		require.Equal(t, numbers(201, 201), receive(t, m, 1))

		// From then on it is an ordinary member.
		require.NoError(t, h.Room("x").Join(within(t), slow))
		publish(t, h.Room("x"), 202, 300)
		for _, m := range []*fanout.Member{m, slow} {
			<-m.Done()
			_, err := m.Receive(within(t))
			require.ErrorIs(t, err, fanout.ErrSlow)
		}
	})
}
