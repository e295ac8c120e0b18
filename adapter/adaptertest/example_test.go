package adaptertest_test

import (
	"context"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/adapter/adaptertest"
	"github.com/fanoutgo/fanout/adapter/memory"
)

// A case can be checked by itself, outside of a test. Tests of a backend call
// Run, which checks them all.
func ExampleCase_Check() {
	for _, c := range adaptertest.Cases() {
		if c.Name != "one-order" {
			continue
		}
		bus := memory.NewBus()
		var nodes adaptertest.Nodes
		for range c.Nodes {
			nodes.Adapters = append(nodes.Adapters, bus.NewAdapter())
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		fmt.Println(c.Name, "fails with:", c.Check(ctx, nodes))
	}
	// Output: one-order fails with: <nil>
}
