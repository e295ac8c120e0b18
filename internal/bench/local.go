package main

import (
	"context"
	"fmt"
)

// localSuite compares hubs within one process. A delivery ends where the
// contestant passes a message to the code that would write it to a connection.
var localSuite = &suite{
	name:  "local",
	about: "one process, no backend: what a delivery costs, and what a member takes",
	metrics: []metric{
		{key: "ns", title: "ns/delivery", digits: 1},
		{key: "cpu", title: "CPU ns/delivery", digits: 1},
		{key: "allocs", title: "allocs/delivery", digits: 4},
		{key: "idle", title: "B/idle member"},
		{key: "stack", title: "stack B/idle member"},
		{key: "lagging", title: "B/lagging member"},
		{key: "room", title: "B/room"},
	},
	open: openLocal,
}

// A localPeer is a contestant of suite local.
type localPeer struct {
	name string
	open func(o hallOptions) (hall, error)
	most int // the most members that it is measured with; peers with buffers for each need gigabytes
}

var localPeers = []localPeer{
	{"fanout", openFanoutHall, 100_000},
	{"fanout OnReady", openReadyHall, 100_000},
	{"channel per member", openChannelHall, 100_000},
	{"channel and context per member", openContextHall, 100_000},
	{"centrifuge hub", openCentrifugeHall, 10_000},
	{"melody", openMelodyHall, 10_000},
}

// localMessages is the number of messages of a burst, whose last one is awaited
// before the contestant looks at the clock. It is half of what fanout and the
// others keep for a member that lags, so no member misses a message.
const localMessages = 128

func openLocal(_ context.Context, o *options) ([]*contest, func() error, error) {
	burst, lockstep := []int{1, 100, 1_000, 10_000, 100_000}, []int{1, 100, 1_000, 10_000}
	publishers, many, all := 8, 10_000, 100_000
	if o.quick {
		burst, lockstep = []int{1, 10, 100}, []int{1, 10}
		publishers, many, all = 2, 100, 1000
	}
	var cases []*contest
	for _, n := range burst {
		cases = append(cases, burstCase(n))
	}
	for _, n := range lockstep {
		cases = append(cases, lockstepCase(n))
	}
	cases = append(cases,
		localCase(fmt.Sprintf("%d publishers, 1 room", publishers),
			localCrowd{rooms: 1, members: 100, publishers: publishers, burst: localMessages}),
		localCase(fmt.Sprintf("%d publishers, %d rooms", publishers, publishers),
			localCrowd{rooms: publishers, members: 100, publishers: publishers, burst: localMessages}),
		stuckCase(many),
		memoryCase(all),
	)
	return cases, func() error { return nil }, nil
}

// burstCase publishes many messages before the last of them is awaited, as in a
// live room.
func burstCase(members int) *contest {
	c := localCase("burst, "+membersOf(members), localCrowd{rooms: 1, members: members, publishers: 1, burst: localMessages})
	if members == 1_000 || members == 10_000 {
		c.targets = []target{
			{of: "fanout", key: "ns", atMost: 15},
			{of: "centrifuge hub", key: "ns", to: "fanout", atLeast: 20},
		}
	}
	return c
}

// lockstepCase has each message awaited by all before the next, so that every
// delivery pays for waking a goroutine.
func lockstepCase(members int) *contest {
	c := localCase("lockstep, "+membersOf(members), localCrowd{rooms: 1, members: members, publishers: 1, burst: 1})
	c.targets = []target{
		{of: "fanout", key: "ns", to: "channel per member", atMost: 1},
		{of: "fanout OnReady", key: "ns", to: "channel and context per member", atMost: 1},
	}
	return c
}

// localCase has all peers that support it do the same.
func localCase(name string, c localCrowd) *contest {
	list := &contest{name: name, measure: "channel per member"}
	for _, p := range localPeers {
		if c.members <= p.most {
			list.contestants = append(list.contestants, contestant{p.name, func(ctx context.Context, o *options) (figures, error) {
				return c.deliver(ctx, o.duration, p.open)
			}})
		}
	}
	return list
}

// stuckCase has one more member in the room, which never receives anything.
func stuckCase(members int) *contest {
	c := &contest{name: "one stuck, " + membersOf(members), measure: "fanout"}
	for _, with := range []localCrowd{
		{rooms: 1, members: members, publishers: 1, burst: localMessages},
		{rooms: 1, members: members, publishers: 1, burst: localMessages, stuck: 1},
	} {
		name := "fanout"
		if with.stuck > 0 {
			name = "fanout, one stuck"
		}
		c.contestants = append(c.contestants, contestant{name, func(ctx context.Context, o *options) (figures, error) {
			return with.deliver(ctx, o.duration, openFanoutHall)
		}})
	}
	c.targets = []target{{of: "fanout, one stuck", key: "ns", to: "fanout", atMost: 1.05}}
	return c
}

func membersOf(n int) string {
	if n == 1 {
		return "1 member"
	}
	return fmt.Sprintf("%d members", n)
}
