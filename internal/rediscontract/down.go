package rediscontract

import (
	"context"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/stretchr/testify/require"
)

// RunClusterDown tests that, while a cluster is down because a slot has no
// owner, everything that needs the cluster returns a clear error, and that
// everything works again when it is back. Histories need a cluster that is
// whole. Rooms without a history do not, but sharded ones need their own slot.
func RunClusterDown(t *testing.T, isSharded bool, newAdapter NewAdapter) {
	t.Parallel()
	c := redistest.NewCluster(t, redistest.Options{})
	d := newDowned(t, c, newAdapter)
	slot := redistest.Slot("fanout:r:{another}")
	if isSharded {
		slot = redistest.Slot("fanout:r:{plain}")
	}
	d.say("plain", "before")
	d.say("kept", "before")
	owner := d.takeSlot(c, slot)

	d.saysWhy("publish", func() error { return d.publish("kept") })
	d.saysWhy("health", func() error { return d.hub.Health(d.within(time.Second)) })
	if isSharded {
		d.saysWhy("publish", func() error { return d.publish("plain") })
		d.saysWhy("join", func() error { return d.other.Room("plain").Join(d.within(time.Second), d.newcomer) })
	} else {
		d.say("plain", "meanwhile")
	}

	redistest.Must(t, owner.Do(t.Context(), "CLUSTER", "ADDSLOTS", strconv.Itoa(slot)).Error())
	d.say("plain", "after")
	d.say("kept", "after")
	require.NoError(t, d.other.Room("plain").Join(d.within(20*time.Second), d.newcomer))
	require.Eventually(t, func() bool { return d.hub.Health(d.within(time.Second)) == nil }, 10*time.Second, time.Millisecond)
}

// downed is two hubs with a member each, of which one is in two rooms, on a
// cluster that is down for a while.
type downed struct {
	*testing.T
	hub, other       *fanout.Hub
	member, newcomer *fanout.Member
}

func newDowned(t *testing.T, c *redistest.Cluster, newAdapter NewAdapter) *downed {
	d := &downed{T: t}
	connect := func() (*fanout.Hub, *fanout.Member) {
		a, err := newAdapter(c.Client(t))
		require.NoError(t, err)
		h, err := fanout.New(a, &fanout.Options{Room: func(room string) (o fanout.RoomOptions) {
			if room == "kept" {
				o.Retain = fanout.Retention{Messages: 10}
			}
			return o
		}})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, h.Close(context.Background())) })
		m, err := h.Connect(nil)
		require.NoError(t, err)
		return h, m
	}
	d.hub, d.member = connect()
	d.other, d.newcomer = connect()
	for _, room := range []string{"plain", "kept"} {
		require.NoError(t, d.hub.Room(room).Join(d.within(20*time.Second), d.member))
	}
	return d
}

func (d *downed) within(limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	d.Cleanup(cancel)
	return ctx
}

func (d *downed) publish(room string) error {
	return d.hub.Room(room).Publish(d.within(500*time.Millisecond), []byte("lost"))
}

// say publishes a text and waits until the member has it. Gaps, and what was
// published before, may come first.
func (d *downed) say(room, text string) {
	d.Helper()
	require.NoError(d, d.hub.Room(room).Publish(d.within(20*time.Second), []byte(text)))
	for {
		msg, err := d.member.Receive(d.within(20 * time.Second))
		if err == nil && msg.Room == room && string(msg.Data) == text {
			return
		}
		if err != nil {
			require.ErrorAs(d, err, new(*fanout.GapError))
		}
	}
}

// why is what errors say: the words of a node, or those of the hub if all nodes
// say that the slot has no owner.
var why = regexp.MustCompile("the cluster is down, or nobody serves the slot.*CLUSTERDOWN|no node of the cluster owns the slot")

// saysWhy waits until the error of a call says what is wrong. The error must
// not be final, since trying again helps.
func (d *downed) saysWhy(what string, call func() error) {
	d.Helper()
	var err error
	require.Eventually(d, func() bool {
		err = call()
		return err != nil && why.MatchString(err.Error())
	}, 20*time.Second, time.Millisecond, what)
	require.NotErrorIs(d, err, fanout.ErrRefused, what)
}

// takeSlot takes a slot from its owner, which it returns.
func (d *downed) takeSlot(c *redistest.Cluster, slot int) (owner *redistest.Node) {
	owner = c.Owner(slot)
	nodes := append([]*redistest.Node{owner}, c.Nodes()...) // it tells the others about the slot, so it is the first to forget it
	for i, n := range nodes {
		err := n.Do(d.Context(), "CLUSTER", "DELSLOTS", strconv.Itoa(slot)).Error()
		require.True(d, err == nil || i > 0 && n == owner, err)
	}
	return owner
}
