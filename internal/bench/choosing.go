package main

import (
	"context"
	"fmt"
)

// choosingSuite is the table of docs/choosing.md.
var choosingSuite = &suite{
	name:  "choosing",
	about: fmt.Sprintf("the ways to join hubs: Redis, sharded, NATS, several Redis; %d rooms, messages of %d B", choosingRooms, messageLength),
	metrics: []metric{
		{key: "published", title: "messages/s, publishers wait", more: true},
		{key: "flooded", title: "messages/s, they don't", more: true},
		{key: "servers", title: "servers µs/msg", digits: 1},
		{key: "busy", title: "the same, busy", digits: 2},
		{key: "commands", title: "commands/msg", digits: 2},
		{key: "bus", title: "between servers/msg", digits: 2},
		{key: "in", title: "in B/msg"},
		{key: "out", title: "out B/msg"},
		{key: "connections", title: "connections/hub", digits: 1},
		{key: "accepted", title: "messages"},
		{key: "silent", title: "lost silently"},
		{key: "missed", title: "reported missing"},
		{key: "unknown", title: "gaps of unknown size"},
		{key: "kept", title: "missing with a history"},
		{key: "recovered", title: "healed by it"},
		{key: "outage", title: "longest outage ms"},
	},
	open: openChoosing,
}

const choosingRooms = 100

// openChoosing returns, for each number of nodes, a case of what it costs to
// publish, and one for each fault of a node.
func openChoosing(_ context.Context, o *options) ([]*contest, func() error, error) {
	sizes := []int{3, 6, 12}
	if o.quick {
		sizes = []int{3}
	}
	one := new(oneFarm)
	var cases []*contest
	for _, nodes := range sizes {
		costs := &contest{name: fmt.Sprintf("%d nodes, no fault", nodes), measure: "sharded"}
		cases = append(cases, costs)
		results := make(map[string]*faultResults)
		for _, w := range ways {
			costs.contestants = append(costs.contestants, contestant{w.name, one.costs(w, nodes)})
			results[w.name] = &faultResults{way: w, nodes: nodes}
		}
		for _, name := range faultsOf(o) {
			// Faults are long, and do not depend on how busy the machine is: one
			// round is enough.
			c := &contest{name: fmt.Sprintf("%d nodes, one is %s", nodes, name), rounds: 1}
			cases = append(cases, c)
			for _, w := range ways {
				c.contestants = append(c.contestants, contestant{w.name, func(ctx context.Context, o *options) (figures, error) {
					if err := one.Close(); err != nil { // idle servers use processors too
						return nil, err
					}
					return results[w.name].of(ctx, o, name)
				}})
			}
		}
	}
	return cases, one.Close, nil
}
