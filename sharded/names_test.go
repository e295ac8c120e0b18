package sharded_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/rediscontract"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/stretchr/testify/require"
)

func TestNames(t *testing.T) {
	rediscontract.RunNames(t, redistest.Options{}, newAdapter)
}

// In a cluster that announces names, a primary's name leads to its replica
// after a failover: the old one has another name, continues to run, and keeps
// the connections that it had.
func TestNamesOfACluster(t *testing.T) {
	t.Parallel()
	for _, kept := range []bool{false, true} {
		t.Run(fmt.Sprintf("history %v", kept), func(t *testing.T) {
			c := redistest.NewCluster(t, redistest.Options{
				Primaries: 3, Replicas: 1,
				Args: []string{"--cluster-preferred-endpoint-type", "hostname"},
			})
			ctx := within(t)
			var names redistest.Names
			announce := func(n *redistest.Node, host string) {
				t.Helper()
				require.NoError(t, n.Do(ctx, "CONFIG", "SET", "cluster-announce-hostname", host).Error())
				_, port, _ := strings.Cut(n.Addr(), ":")
				names.Set(host+":"+port, n)
			}
			known := func(host string, by *redistest.Node, at *redistest.Node) bool {
				reply, _ := by.Do(ctx, "CLUSTER", "NODES").ToString()
				for line := range strings.Lines(reply) {
					if strings.HasPrefix(line, at.ID()) {
						return strings.Contains(line, ","+host+" ")
					}
				}
				return false
			}
			everybodyKnows := func(host string, at *redistest.Node) {
				t.Helper()
				require.Eventually(t, func() bool {
					for _, n := range c.Nodes() {
						if !known(host, n, at) {
							return false
						}
					}
					return true
				}, 20*time.Second, 10*time.Millisecond)
			}
			for i, n := range c.Nodes() {
				announce(n, fmt.Sprintf("node%d.test", i))
			}
			for i, n := range c.Nodes() {
				everybodyKnows(fmt.Sprintf("node%d.test", i), n)
			}
			_, port, _ := strings.Cut(c.Nodes()[0].Addr(), ":")
			newHub := func() *fanout.Hub {
				a, err := newAdapter(c.Client(t, names.Option("node1.test:"+port)))
				require.NoError(t, err)
				o := &fanout.Options{PublishTimeout: 3 * time.Second}
				if kept {
					o.Room = func(string) fanout.RoomOptions {
						return fanout.RoomOptions{Retain: fanout.Retention{Messages: 1000, Age: time.Hour}}
					}
				}
				h, err := fanout.New(a, o)
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, h.Close(context.Background())) })
				return h
			}
			room := ""
			for i := 0; room == "" || c.Owner(slotOf(room)) != c.Nodes()[0]; i++ {
				room = fmt.Sprint("room", i)
			}
			subscribes, publishes := newHub(), newHub()
			m, err := subscribes.Connect(nil)
			require.NoError(t, err)
			require.NoError(t, subscribes.Room(room).Join(ctx, m))
			got := make(chan string, 10000)
			go func() {
				for msg, err := range m.Messages(context.Background()) {
					if err == nil {
						got <- string(msg.Data)
					} else if gap := new(fanout.GapError); !errors.As(err, &gap) {
						return
					}
				}
			}()
			heard := func(text string) bool {
				if publishes.Room(room).Publish(ctx, []byte(text)) != nil {
					return false
				}
				for deadline := time.After(300 * time.Millisecond); ; {
					select {
					case s := <-got:
						if s == text {
							return true
						}
					case <-deadline:
						return false
					}
				}
			}
			require.Eventually(t, func() bool { return heard("before") }, 10*time.Second, time.Millisecond)

			old := c.Nodes()[0]
			replica := c.ReplicasOf(old)[0]
			redistest.Must(t, c.Failover(ctx, replica))
			announce(old, "old.test")
			announce(replica, "node0.test")
			everybodyKnows("node0.test", replica)
			began := time.Now()
			inARow := 0
			require.Eventually(t, func() bool {
				if heard(fmt.Sprint("after", time.Now())) {
					inARow++
				} else {
					inARow = 0
				}
				return inARow >= 20
			}, 15*time.Second, time.Millisecond)
			t.Logf("well after %v", time.Since(began))
			require.NoError(t, publishes.Health(ctx))
			require.NoError(t, subscribes.Health(ctx))
			channels, err := old.Do(ctx, "PUBSUB", "SHARDCHANNELS").AsStrSlice()
			require.NoError(t, err)
			require.Empty(t, channels, "channels that are subscribed at the old primary")
		})
	}
}

// A node that comes back without its memory says CLUSTERDOWN for as long as it
// lives. Adapters that only publish leave it all the same, when the others name
// another owner.
func TestANodeWithoutItsMemory(t *testing.T) {
	t.Parallel()
	type attempt = func(ctx context.Context, a *sharded.Adapter, channel string) error
	for name, try := range map[string]attempt{
		"publish": func(ctx context.Context, a *sharded.Adapter, channel string) error {
			_, err := a.Publish(ctx, channel, []byte("hello"))
			return err
		},
		"append": func(ctx context.Context, a *sharded.Adapter, channel string) error {
			_, _, err := a.Append(ctx, channel, adapter.Record{
				Frame: []byte("hello"), Messages: 1, Time: time.Now(),
				Keep: fanout.Retention{Messages: 10, Age: time.Hour},
			})
			return err
		},
		"history": func(ctx context.Context, a *sharded.Adapter, channel string) error {
			_, err := a.History(ctx, channel, adapter.Query{Limit: 10, Time: time.Now(), Keep: fanout.Retention{Messages: 10, Age: time.Hour}})
			return err
		},
		"subscribe": func(ctx context.Context, a *sharded.Adapter, channel string) error {
			ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
			defer cancel()
			return a.Subscribe(ctx, channel)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := redistest.NewCluster(t, redistest.Options{Primaries: 3, Replicas: 1})
			ctx := within(t)
			const channel = "fanout:r:{room}"
			slot := redistest.Slot(channel)
			old := c.Owner(slot)
			a, err := newAdapter(c.Client(t))
			require.NoError(t, err)
			require.NoError(t, a.Attach(deaf{}))
			defer a.Close(context.Background())
			adapter := a.(*sharded.Adapter)
			require.Eventually(t, func() bool { return try(ctx, adapter, channel) == nil }, 10*time.Second, time.Millisecond)
			require.NoError(t, adapter.Unsubscribe(ctx, channel))

			redistest.Must(t, old.Kill(ctx))
			redistest.Must(t, c.WaitHealthy(ctx))
			redistest.Must(t, old.Start(ctx))
			require.Eventually(t, func() bool {
				return old.Do(ctx, "CLUSTER", "RESET", "HARD").Error() == nil
			}, 20*time.Second, 10*time.Millisecond)
			began := time.Now()
			var said error
			require.Eventually(t, func() bool {
				err := try(ctx, adapter, channel)
				if e := adapter.Health(); e != nil {
					said = e
				}
				return err == nil
			}, 2*time.Second, time.Millisecond)
			t.Logf("well after %v; meanwhile: %v", time.Since(began), said)
			if name != "subscribe" {
				require.ErrorContains(t, said, "CLUSTERDOWN")
			}
			require.Eventually(t, func() bool { return adapter.Health() == nil }, 5*time.Second, time.Millisecond)
		})
	}
}

// deaf is a receiver that wants nothing.
type deaf struct{}

func (deaf) Receive(string, []byte) {}
func (deaf) Interrupted(string)     {}
func (deaf) Restored(string)        {}
