package sharded_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// All leave while all rejoin, many times, on several hubs: no room ends up
// deaf.
func TestLeaveAndRejoinStorm(t *testing.T) {
	c := cluster(t)
	const hubs, each = 3, 4
	times := redistest.Rounds(300, 1000)
	rooms := roomNames(3)
	var all []*fanout.Hub
	var members []*fanout.Member
	for range hubs {
		a, err := newAdapter(c.Client(t))
		require.NoError(t, err)
		h, err := fanout.New(a, &fanout.Options{Linger: -1}) // leaving unsubscribes at once
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, h.Close(within(t))) })
		all = append(all, h)
		for range each {
			m, err := h.Connect(nil)
			require.NoError(t, err)
			members = append(members, m)
		}
	}
	storm := func(i int, last, before func(*fanout.Room, context.Context, *fanout.Member) error) {
		for n := range times {
			room := all[i/each].Room(rooms[n%len(rooms)])
			var wg sync.WaitGroup
			wg.Go(func() { before(room, context.Background(), members[i]) })
			wg.Go(func() { last(room, context.Background(), members[i]) })
			wg.Wait()
		}
		for _, name := range rooms {
			if err := last(all[i/each].Room(name), within(t), members[i]); err != nil {
				t.Error(err)
			}
		}
	}
	inParallel(len(members), func(i int) { storm(i, (*fanout.Room).Join, (*fanout.Room).Leave) })

	var want []string
	for i, h := range all {
		for _, room := range rooms {
			text := fmt.Sprint(room, " from ", i)
			want = append(want, text)
			require.NoError(t, h.Room(room).Publish(within(t), []byte(text)))
		}
	}
	for i, m := range members {
		var got []string
		for range want {
			msg, err := m.Receive(within(t))
			require.NoError(t, err)
			got = append(got, string(msg.Data))
		}
		require.ElementsMatch(t, want, got, "member %d", i)
	}

	inParallel(len(members), func(i int) { storm(i, (*fanout.Room).Leave, (*fanout.Room).Join) })
	for _, room := range rooms { // and nobody listens for nobody
		channel := "fanout:r:{" + room + "}"
		require.EventuallyWithT(t, func(check *assert.CollectT) {
			n := c.Owner(slotOf(room)).Do(t.Context(), "PUBSUB", "SHARDNUMSUB", channel)
			counts, err := n.AsIntMap()
			require.NoError(check, err)
			require.Zero(check, counts[channel])
		}, 10*time.Second, 10*time.Millisecond)
	}
}

// Sharded Pub/Sub does not bother nodes that do not own the room's slot.
func TestPublishingAddsNoBusMessages(t *testing.T) {
	t.Parallel()
	for _, primaries := range []int{3, 6} {
		t.Run(fmt.Sprint(primaries, " primaries"), func(t *testing.T) {
			c := redistest.NewCluster(t, redistest.Options{Primaries: primaries})
			a, b := newHub(t, c.Client(t)), newHub(t, c.Client(t))
			m, err := b.Connect(nil)
			require.NoError(t, err)
			rooms := roomNames(30)
			for _, room := range rooms {
				require.NoError(t, b.Room(room).Join(within(t), m))
			}
			before, err := c.BusSent(t.Context())
			require.NoError(t, err)
			const each = 20
			inParallel(len(rooms), func(i int) {
				for range each {
					assert.NoError(t, a.Room(rooms[i]).Publish(within(t), []byte("hello")))
				}
			})
			after, err := c.BusSent(t.Context())
			require.NoError(t, err)
			require.EqualValues(t, each*len(rooms), a.Stats().Frames)
			require.Zero(t, after.Sub(before), "bus messages for %d publishes", each*len(rooms))
		})
	}
}

func TestOneConnectionForEachPrimaryWhateverTheRooms(t *testing.T) {
	t.Parallel()
	c := redistest.NewCluster(t, redistest.Options{Primaries: 3})
	h := newHub(t, c.Client(t))
	m, err := h.Connect(nil)
	require.NoError(t, err)
	inParallel(2000, func(i int) {
		assert.NoError(t, h.Room(fmt.Sprint("room", i)).Join(within(t), m))
	})
	for _, n := range c.Nodes() {
		list, err := n.Do(t.Context(), "CLIENT", "LIST", "TYPE", "pubsub").ToString()
		require.NoError(t, err)
		require.Equal(t, 1, strings.Count(list, "id="), list)
	}
}

func TestPubSubSubscriberOverTheOutputBufferLimit(t *testing.T) {
	t.Parallel()
	c := redistest.NewCluster(t, redistest.Options{Args: []string{"--client-output-buffer-limit", "pubsub 256kb 0 0"}})
	w := newWorld(t, c, 2, roomNames(6))
	// The hub reads nothing for a while, and the servers give it up.
	before := pubsubClients(t, c)
	var given []*redistest.Node
	w.nets[0].CutAll()
	big := strings.Repeat("x", 64<<10)
	require.Eventually(t, func() bool {
		for _, room := range w.rooms {
			w.say(1, room, big)
			big += "x" // each is another message
		}
		for n, count := range pubsubClients(t, c) {
			if count < before[n] {
				given = append(given, n)
			}
		}
		return len(given) > 0
	}, time.Minute, 10*time.Millisecond)
	w.nets[0].HealAll()
	// What is left in such a connection suffices to hear everybody again; but
	// that is not the end of it.
	w.until("the member is told", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return !slices.ContainsFunc(w.rooms, func(room string) bool {
			return slices.Contains(given, c.Owner(slotOf(room))) && w.heard[0][room].unknown == 0
		})
	})
	w.resumes()
	w.verdict()
}

// pubsubClients counts the connections of subscribers of each node.
func pubsubClients(t *testing.T, c *redistest.Cluster) map[*redistest.Node]int {
	counts := make(map[*redistest.Node]int)
	for _, n := range c.Nodes() {
		list, err := n.Do(t.Context(), "CLIENT", "LIST", "TYPE", "pubsub").ToString()
		require.NoError(t, err)
		counts[n] = strings.Count(list, "id=")
	}
	return counts
}

// While nothing can be reached Join waits, and then works.
func TestJoinWaitsForTheLink(t *testing.T) {
	c := cluster(t)
	var net redistest.Net
	h := newHub(t, c.Client(t, net.Option()))
	t.Cleanup(net.HealAll)
	m, err := h.Connect(nil)
	require.NoError(t, err)
	require.NoError(t, h.Room("before").Join(within(t), m))
	net.ResetAll()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, h.Room("x").Join(ctx, m), context.DeadlineExceeded)
	joined := make(chan error, 1)
	go func() { joined <- h.Room("x").Join(within(t), m) }()
	net.HealAll()
	require.NoError(t, <-joined)
	require.NoError(t, h.Room("x").Publish(within(t), []byte("hello")))
}

func TestACLUsers(t *testing.T) {
	t.Parallel()
	c := redistest.NewCluster(t, redistest.Options{Primaries: 3})
	for _, n := range c.Nodes() {
		require.NoError(t, n.Do(t.Context(), "ACL", "SETUSER", "chat", "on", ">secret", "resetchannels", "&fanout:*", "-@all",
			"+ssubscribe", "+sunsubscribe", "+spublish", "+role", "+cluster|slots", "+cluster|shards", "+hello", "+ping").Error())
	}
	as := func(o *rueidis.ClientOption) { o.Username, o.Password = "chat", "secret" }
	h := newHub(t, c.Client(t, as))
	m, err := h.Connect(nil)
	require.NoError(t, err)
	require.NoError(t, h.Room("x").Join(within(t), m))
	require.NoError(t, h.Room("x").Publish(within(t), []byte("hello")))
	msg, err := m.Receive(within(t))
	require.NoError(t, err)
	require.Equal(t, "hello", string(msg.Data))

	// Another prefix is refused at once.
	a, err := newAdapter(c.Client(t, as))
	require.NoError(t, err)
	other, err := fanout.New(a, &fanout.Options{Prefix: "other", Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer other.Close(within(t))
	stranger, err := other.Connect(nil)
	require.NoError(t, err)
	err = other.Room("x").Join(within(t), stranger)
	require.ErrorIs(t, err, fanout.ErrRefused)
	require.ErrorContains(t, err, "NOPERM")
	err = other.Room("x").Publish(within(t), []byte("hello"))
	require.ErrorIs(t, err, fanout.ErrRefused)
	require.ErrorContains(t, err, "NOPERM")
}

// Rights for the hub's own channels may be granted later.
func TestACLRightsGrantedLater(t *testing.T) {
	t.Parallel()
	s := redistest.NewServer(t, redistest.Options{})
	grant := func(channels string) {
		t.Helper()
		require.NoError(t, s.Do(t.Context(), "ACL", "SETUSER", "chat", "on", ">secret", "resetchannels", channels, "-@all",
			"+ssubscribe", "+sunsubscribe", "+spublish", "+role", "+hello", "+ping").Error())
	}
	grant("&fanout:r:*")
	h := newHub(t, s.Client(t, func(o *rueidis.ClientOption) { o.Username, o.Password = "chat", "secret" }))
	m, err := h.Connect(nil)
	require.NoError(t, err)
	for _, err := range []error{h.Room("x").Join(within(t), m), h.Health(within(t)), h.Everyone().Publish(within(t), nil)} {
		require.ErrorIs(t, err, fanout.ErrRefused)
		require.ErrorContains(t, err, "NOPERM")
	}
	grant("&fanout:*")
	require.Eventually(t, func() bool { return h.Room("x").Join(within(t), m) == nil }, 3*time.Second, 10*time.Millisecond)
	require.NoError(t, h.Health(within(t)))
	require.NoError(t, h.Everyone().Publish(within(t), []byte("hello")))
	msg, err := m.Receive(within(t))
	require.NoError(t, err)
	require.Equal(t, "hello", string(msg.Data))
}

func TestRESP2(t *testing.T) {
	c := cluster(t)
	h := newHub(t, c.Client(t, func(o *rueidis.ClientOption) { o.AlwaysRESP2 = true }))
	m, err := h.Connect(nil)
	require.NoError(t, err)
	for _, room := range roomNames(10) {
		require.NoError(t, h.Room(room).Join(within(t), m))
		require.NoError(t, h.Room(room).Publish(within(t), []byte(room)))
		msg, err := m.Receive(within(t))
		require.NoError(t, err)
		require.Equal(t, room, string(msg.Data))
	}
}

func TestRedisCLIMaySpeakIntoARoom(t *testing.T) {
	c := cluster(t)
	h := newHub(t, c.Client(t))
	m, err := h.Connect(nil)
	require.NoError(t, err)
	require.NoError(t, h.Room("lobby").Join(within(t), m))
	n, err := c.Owner(slotOf("lobby")).Do(t.Context(), "SPUBLISH", "fanout:r:{lobby}", "hello from redis-cli").AsInt64()
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	msg, err := m.Receive(within(t))
	require.NoError(t, err)
	require.Equal(t, fanout.Message{Room: "lobby", Data: []byte("hello from redis-cli")}, msg)
}

func TestSentinelFailsOver(t *testing.T) {
	t.Parallel()
	for name, failover := range map[string]func(*redistest.Sentinel, *redistest.Node) error{
		"when the primary dies":   func(_ *redistest.Sentinel, primary *redistest.Node) error { return primary.Kill(within(t)) },
		"while the primary lives": func(s *redistest.Sentinel, _ *redistest.Node) error { return s.Failover(within(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := redistest.NewSentinel(t, redistest.Options{})
			w := newWorld(t, s, 2, roomNames(6))
			primary, err := s.Primary(t.Context())
			require.NoError(t, err)
			redistest.Must(t, failover(s, primary))
			require.EventuallyWithT(t, func(check *assert.CollectT) {
				now, err := s.Primary(t.Context())
				require.NoError(check, err)
				require.NotEqual(check, primary.Addr(), now.Addr())
			}, time.Minute, 10*time.Millisecond)
			w.resumes()
			w.verdict()
		})
	}
}

// A server that restarts has forgotten every subscription.
func TestOneServerRestarts(t *testing.T) {
	t.Parallel()
	s := redistest.NewServer(t, redistest.Options{})
	w := newWorld(t, s, 2, roomNames(6))
	for range 2 {
		redistest.Must(t, s.Kill(within(t)))
		redistest.Must(t, s.Start(within(t)))
		w.resumes()
	}
	w.verdict()
}

func TestHealthStaysWellUnderJoins(t *testing.T) {
	h := newHub(t, server(t).Client(t))
	m, err := h.Connect(nil)
	require.NoError(t, err)
	require.NoError(t, h.Room("x").Join(within(t), m))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, room := range roomNames(500) {
			assert.NoError(t, h.Room(room).Join(within(t), m))
		}
	}()
	for joining := true; joining; {
		select {
		case <-done:
			joining = false
		default:
			require.NoError(t, h.Health(within(t)))
		}
	}
}

func TestHealthStaysWellUnderUnsubscribing(t *testing.T) {
	a, err := sharded.New(server(t).Client(t), nil)
	require.NoError(t, err)
	defer a.Close(within(t))
	require.NoError(t, a.Attach(heedless{}))
	for range 20 {
		inParallel(200, func(i int) { assert.NoError(t, a.Subscribe(within(t), fmt.Sprint("room", i))) })
		done := make(chan struct{})
		go func() {
			defer close(done)
			inParallel(200, func(i int) { assert.NoError(t, a.Unsubscribe(within(t), fmt.Sprint("room", i))) })
		}()
		for busy := true; busy; {
			select {
			case <-done:
				busy = false
			default:
				require.NoError(t, a.Health())
			}
		}
	}
}

func TestBadOptionsAreRefused(t *testing.T) {
	_, err := sharded.New(nil, nil)
	require.ErrorContains(t, err, "the client is nil")
	_, err = sharded.New(server(t).Client(t), &sharded.Options{ProbeTimeout: -1})
	require.ErrorIs(t, err, fanout.ErrInvalidOption)
	require.ErrorContains(t, err, "ProbeTimeout")
}
