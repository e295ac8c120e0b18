package rediscontract

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// name is the address that clients use, whichever server it leads to.
const name = "redis.test:6379"

// settles is how long hubs may take to be at the right server: some probe
// intervals, on a busy machine.
const settles = 10 * time.Second

// RunNames checks that hubs follow a name that leads to another server,
// although the old server continues to run and keeps its connections.
// RunNames runs in parallel with other tests.
func RunNames(t *testing.T, o redistest.Options, newAdapter NewAdapter) {
	t.Parallel()
	for _, resp2 := range []bool{false, true} {
		protocol := "RESP3"
		if resp2 {
			protocol = "RESP2"
		}
		for _, kept := range []bool{false, true} {
			rooms := "rooms"
			if kept {
				rooms = "rooms with a history"
			}
			t.Run(fmt.Sprint(protocol, ", ", rooms), func(t *testing.T) {
				if resp2 != kept { // one of each is enough for everyone
					redistest.Long(t)
				}
				pair := redistest.NewPair(t, o)
				first, second := pair.Nodes()
				for _, c := range []struct {
					name   string
					happen func(n *named, from, to *redistest.Node)
				}{
					{"the old primary becomes a replica of the new one", (*named).demoted},
					{"the name follows later", (*named).demotedFirst},
					{"the old server stays a primary", (*named).left},
				} {
					t.Run(c.name, func(t *testing.T) {
						redistest.Must(t, pair.Replicate(t.Context(), second, first))
						n := newNamed(t, pair, resp2, kept, newAdapter)
						c.happen(n, first, second)
					})
				}
			})
		}
	}
}

// named are hubs that know their server by name, and what their members
// received.
type named struct {
	t          *testing.T
	pair       *redistest.Pair
	names      redistest.Names
	resp2      bool
	kept       bool
	newAdapter NewAdapter
	hubs       []*fanout.Hub

	mu        sync.Mutex
	got       []map[string]int // by hub, what its member received and how often
	missed    []int
	unknown   []int    // gaps of unknown size
	accepted  []string // the messages whose Publish returned nil, in order
	published int      // number of messages published
	unclear   int
}

func newNamed(t *testing.T, pair *redistest.Pair, resp2, kept bool, newAdapter NewAdapter) *named {
	n := &named{t: t, pair: pair, resp2: resp2, kept: kept, newAdapter: newAdapter}
	first, _ := pair.Nodes()
	n.names.Set(name, first)
	n.connect()
	n.connect()
	for hub := range n.hubs { // so that everything they publish from now on is counted
		require.Eventually(t, func() bool { return n.heard(hub, "before") }, settles, time.Millisecond)
	}
	return n
}

// connect adds a hub with a member in the room.
func (n *named) connect() {
	n.t.Helper()
	client := n.pair.Client(n.t, n.names.Option(name), func(o *rueidis.ClientOption) { o.AlwaysRESP2 = n.resp2 })
	a, err := n.newAdapter(client)
	require.NoError(n.t, err)
	o := &fanout.Options{PublishTimeout: 2 * time.Second}
	if n.kept {
		o.Room = func(string) fanout.RoomOptions {
			return fanout.RoomOptions{Retain: adapter.Retention{Messages: 10000, Age: time.Hour}}
		}
	}
	h, err := fanout.New(a, o)
	require.NoError(n.t, err)
	n.t.Cleanup(func() { assert.NoError(n.t, h.Close(context.Background())) })
	m, err := h.Connect(nil)
	require.NoError(n.t, err)
	require.NoError(n.t, h.Room("room").Join(n.t.Context(), m))
	n.mu.Lock()
	hub := len(n.hubs)
	n.hubs = append(n.hubs, h)
	n.got = append(n.got, make(map[string]int))
	n.missed = append(n.missed, 0)
	n.unknown = append(n.unknown, 0)
	n.mu.Unlock()
	go func() { // ends with the hub
		for msg, err := range m.Messages(context.Background()) {
			n.mu.Lock()
			if gap := new(fanout.GapError); errors.As(err, &gap) {
				n.missed[hub] += gap.Missed
				if gap.Unknown {
					n.unknown[hub]++
				}
			} else if err == nil {
				n.got[hub][string(msg.Data)]++
			}
			n.mu.Unlock()
			if err != nil && gapOf(err) == nil {
				return
			}
		}
	}()
}

func gapOf(err error) *fanout.GapError {
	gap := new(fanout.GapError)
	if errors.As(err, &gap) {
		return gap
	}
	return nil
}

// publish publishes from a hub, and counts what became of it. It returns the
// text with what tells it from others.
func (n *named) publish(hub int, text string) (string, error) {
	n.mu.Lock()
	n.published++
	text = fmt.Sprintf("%s %d of %d", text, n.published, hub)
	n.mu.Unlock()
	err := n.hubs[hub].Room("room").Publish(n.t.Context(), []byte(text))
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case errors.Is(err, adapter.ErrUnsent):
		n.published--
	case err != nil:
		n.published--
		n.unclear++
	default:
		n.accepted = append(n.accepted, text)
	}
	return text, err
}

// heard publishes from a hub, and reports whether all members receive it soon.
func (n *named) heard(hub int, text string) bool {
	text, err := n.publish(hub, text)
	if err != nil {
		return false
	}
	for deadline := time.Now().Add(300 * time.Millisecond); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		n.mu.Lock()
		all := true
		for _, got := range n.got {
			all = all && got[text] > 0
		}
		n.mu.Unlock()
		if all {
			return true
		}
	}
	return false
}

// health returns the hub's Health.
func (n *named) health(hub int) error {
	ctx, cancel := context.WithTimeout(n.t.Context(), time.Second)
	defer cancel()
	return n.hubs[hub].Health(ctx)
}

// settle waits until all members receive from all hubs at a server, and all
// hubs are healthy.
func (n *named) settle(at *redistest.Node) {
	n.t.Helper()
	began := time.Now()
	for hub := range n.hubs {
		inARow := 0
		require.Eventually(n.t, func() bool {
			if n.heard(hub, "after") {
				inARow++
			} else {
				inARow = 0
			}
			return inARow >= 3 && n.health(hub) == nil
		}, settles, time.Millisecond, "hub %d is heard by all", hub)
	}
	n.t.Logf("all is well after %v", time.Since(began).Round(time.Millisecond))
	first, second := n.pair.Nodes()
	for _, node := range []*redistest.Node{first, second} {
		if node == at {
			continue
		}
		require.Eventually(n.t, func() bool {
			channels, err := node.Do(n.t.Context(), "PUBSUB", "CHANNELS").AsStrSlice()
			sharded, _ := node.Do(n.t.Context(), "PUBSUB", "SHARDCHANNELS").AsStrSlice()
			return err == nil && len(channels)+len(sharded) == 0
		}, settles, 10*time.Millisecond, "nobody is subscribed at the old server")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for hub := range 2 { // those that were there from the beginning
		sum, least := len(n.got[hub])+n.missed[hub], n.published-n.uncounted(hub)
		if !n.kept && (sum < least || sum > n.published+n.unclear) {
			n.t.Errorf("hub %d: received %d, reported missed %d; published %d, of which %d may be uncounted, and perhaps %d: %q, got %v",
				hub, len(n.got[hub]), n.missed[hub], n.published, n.published-least, n.unclear, n.accepted, n.got[hub])
		}
	}
}

// uncounted returns how many messages a hub need not have counted, if it was
// told that some may be missing: those that the hub that came last published
// before the first one that was received from it. n.mu is held.
func (n *named) uncounted(hub int) (messages int) {
	if n.unknown[hub] == 0 {
		return 0
	}
	for _, text := range n.accepted {
		if !strings.HasSuffix(text, fmt.Sprintf(" of %d", len(n.hubs)-1)) {
			continue
		}
		if n.got[hub][text] > 0 {
			break
		}
		messages++
	}
	return messages
}

// In demoted the name leads to the new primary as soon as the old one is a
// replica.
func (n *named) demoted(from, to *redistest.Node) {
	redistest.Must(n.t, n.pair.Replicate(n.t.Context(), from, to))
	n.names.Set(name, to)
	n.connect()
	n.settle(to)
}

// In demotedFirst there is no way to a primary for a while. Publishing then
// fails, and Health says why.
func (n *named) demotedFirst(from, to *redistest.Node) {
	redistest.Must(n.t, n.pair.Replicate(n.t.Context(), from, to))
	require.Eventually(n.t, func() bool {
		err := n.health(0)
		return err != nil && strings.Contains(err.Error(), "replica")
	}, settles, time.Millisecond)
	require.Eventually(n.t, func() bool {
		_, err := n.publish(0, "nobody") // a member may miss one that was sent before
		return errors.Is(err, adapter.ErrUnsent) || n.kept && err != nil
	}, settles, time.Millisecond)
	n.names.Set(name, to)
	n.connect()
	n.settle(to)
}

// In left the old server stays a primary that knows nothing of the new one.
func (n *named) left(_, to *redistest.Node) {
	redistest.Must(n.t, to.Do(n.t.Context(), "REPLICAOF", "NO", "ONE").Error())
	n.names.Set(name, to)
	n.connect()
	n.settle(to)
}
