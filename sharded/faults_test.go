package sharded_test

import (
	"context"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What happens to a cluster while people talk. After each of these the
// guarantees are checked for every member and room: received and reported
// missed is what was published, one order (but see two), nothing twice; and
// service has resumed by itself.
var faults = []struct {
	name   string
	happen func(t *testing.T, c *redistest.Cluster, w *world)
	// worst is how many messages a member may miss of a room; 0: any number. A
	// handful of each is usual; on a machine that is busy with other things a
	// hub may follow a slot some hundred milliseconds late.
	worst int
	// two: for a while the old primary and the new one both have subscribers,
	// and pass on to each other what is published, each in its own order. What
	// is said then may be in different order for different hubs: the package
	// doc says so.
	two bool
}{
	{"moving 1000 slots", move1000, 20, false}, // there and back
	{"moving slots one by one", moveRooms, 10, false},
	{"CLIENT KILL TYPE pubsub", killClients, 0, false},
	{"killing a primary", killPrimary, 0, false},
	{"manual failover", failover, 0, true},
	{"pausing a primary for 1 s", pause(time.Second), 0, false},
	{"pausing a primary for 4 s", pause(4 * time.Second), 0, true},
	{"a primary off the network", offNetwork, 0, true},
	{"a hub cut from one node", cutOne, 0, false},
	{"a hub cut from all nodes", cutAll, 0, false},
	{"a hub's connections reset", resetAll, 0, false},
}

func TestFaults(t *testing.T) {
	t.Parallel()
	redistest.OnImages(t, func(t *testing.T, image string) {
		for _, f := range faults {
			t.Run(f.name, func(t *testing.T) {
				c := faultClusters(t, image)
				w := newWorld(t, c, 3, roomNames(24))
				w.two = f.two
				f.happen(t, c, w)
				w.leaves(c)
				w.resumes()
				worst := w.verdict()
				if f.worst > 0 {
					assert.LessOrEqual(t, worst, f.worst, "messages missed of a room")
				}
			})
		}
	})
}

// leaves waits until no hub is subscribed at a replica. One that was a primary
// serves subscribers as if it still were, and need not pass on to them what is
// published at the new one.
func (w *world) leaves(c *redistest.Cluster) {
	w.t.Helper()
	w.until("no hub is subscribed at a replica", func() bool {
		for _, p := range c.Primaries() {
			for _, r := range c.ReplicasOf(p) {
				channels, err := r.Do(w.t.Context(), "PUBSUB", "SHARDCHANNELS", "fanout:r:*").AsStrSlice()
				if err != nil || len(channels) > 0 {
					return false
				}
			}
		}
		return true
	})
}

// slotOf is the slot of a room's channel.
func slotOf(room string) int { return redistest.Slot("fanout:r:{" + room + "}") }

// two returns the owner of the first room, and another primary.
func two(c *redistest.Cluster, w *world) (from, to *redistest.Node) {
	from = c.Owner(slotOf(w.rooms[0]))
	for _, n := range c.Primaries() {
		if n != from {
			return from, n
		}
	}
	return from, nil
}

// move1000 moves 1,000 slots, those of the node's rooms among them, and back.
func move1000(t *testing.T, c *redistest.Cluster, w *world) {
	from, to := two(c, w)
	var slots []int
	for _, room := range w.rooms {
		if c.Owner(slotOf(room)) == from {
			slots = append(slots, slotOf(room))
		}
	}
	for _, s := range c.SlotsOf(from) {
		if len(slots) == 1000 {
			break
		}
		slots = append(slots, s)
	}
	redistest.Must(t, c.MigrateSlots(within(t), from, to, slots))
	w.resumes()
	redistest.Must(t, c.MigrateSlots(within(t), to, from, slots))
}

func moveRooms(t *testing.T, c *redistest.Cluster, w *world) {
	from, to := two(c, w)
	for _, room := range w.rooms {
		if c.Owner(slotOf(room)) == from {
			redistest.Must(t, c.MigrateSlot(within(t), from, to, slotOf(room)))
		}
	}
}

func killClients(t *testing.T, c *redistest.Cluster, w *world) {
	for range 5 {
		killed := 0
		for _, n := range c.Nodes() {
			k, err := n.KillClients(within(t), "pubsub")
			redistest.Must(t, err)
			killed += k
		}
		require.GreaterOrEqual(t, killed, 3)
		w.resumes()
	}
}

func killPrimary(t *testing.T, c *redistest.Cluster, w *world) {
	n := c.Owner(slotOf(w.rooms[0]))
	redistest.Must(t, n.Kill(within(t)))
	redistest.Must(t, c.WaitHealthy(within(t)))
	w.resumes()
	redistest.Must(t, n.Start(within(t)))
	redistest.Must(t, c.WaitHealthy(within(t)))
}

func failover(t *testing.T, c *redistest.Cluster, w *world) {
	n := c.Owner(slotOf(w.rooms[0]))
	redistest.Must(t, c.Failover(within(t), c.ReplicasOf(n)[0]))
}

func pause(d time.Duration) func(*testing.T, *redistest.Cluster, *world) {
	return func(t *testing.T, c *redistest.Cluster, w *world) {
		n := c.Owner(slotOf(w.rooms[0]))
		redistest.Must(t, n.Pause(within(t)))
		<-time.After(d) // the fault is its length
		redistest.Must(t, n.Unpause(within(t)))
		redistest.Must(t, c.WaitHealthy(within(t)))
	}
}

func offNetwork(t *testing.T, c *redistest.Cluster, w *world) {
	n := c.Owner(slotOf(w.rooms[0]))
	redistest.Must(t, n.Cut(within(t)))
	redistest.Must(t, c.WaitHealthy(within(t)))
	w.resumes()
	redistest.Must(t, n.Heal(within(t)))
	redistest.Must(t, c.WaitHealthy(within(t)))
}

func cutOne(t *testing.T, c *redistest.Cluster, w *world) {
	n := c.Owner(slotOf(w.rooms[0]))
	notices := w.notices(0)
	w.nets[0].Cut(n.Addr())
	notices()
	w.nets[0].Heal(n.Addr())
}

func cutAll(t *testing.T, _ *redistest.Cluster, w *world) {
	notices := w.notices(0)
	w.nets[0].CutAll()
	notices()
	w.nets[0].HealAll()
}

func resetAll(t *testing.T, _ *redistest.Cluster, w *world) {
	for range 3 {
		notices := w.notices(0)
		w.nets[0].ResetAll()
		notices()
		w.nets[0].HealAll()
		w.resumes()
	}
}

// notices returns a function that waits until a hub has noticed that something
// is wrong, and says so.
func (w *world) notices(hub int) func() {
	w.t.Helper()
	before := w.hubs[hub].Stats().Interruptions
	return func() {
		w.t.Helper()
		w.until("the hub notices", func() bool { return w.hubs[hub].Stats().Interruptions > before })
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		defer cancel()
		require.Error(w.t, w.hubs[hub].Health(ctx))
	}
}
