package adaptertest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/adaptertest"
)

var errNotConnected = fmt.Errorf("%w: there is no connection yet", adapter.ErrUnsent)

// liberties are choices that the contract leaves to an adapter. No case may
// fail.
var liberties = []mutant{
	{
		name: "has no connection before its fourth publish",
		breakIt: func(n *node) {
			connected := func() bool { return n.tally("publishes") > 3 || errors.Is(n.Adapter.Health(), adapter.ErrClosed) }
			n.publish = func(ctx context.Context, channel string, frame []byte) (int, error) {
				if !connected() {
					return 0, errNotConnected
				}
				return n.Adapter.Publish(ctx, channel, frame)
			}
			n.append = func(ctx context.Context, channel string, r adapter.Record) (adapter.Position, int, error) {
				if !connected() {
					return adapter.Position{}, 0, errNotConnected
				}
				return n.Adapter.Append(ctx, channel, r)
			}
		},
	},
	{
		name: "says of an ended context only that nothing was sent",
		breakIt: func(n *node) {
			n.publish = func(ctx context.Context, channel string, frame []byte) (int, error) {
				if ctx.Err() != nil && !errors.Is(n.Adapter.Health(), adapter.ErrClosed) {
					return 0, errNotConnected
				}
				return n.Adapter.Publish(ctx, channel, frame)
			}
			n.append = func(ctx context.Context, channel string, r adapter.Record) (adapter.Position, int, error) {
				if ctx.Err() != nil && !errors.Is(n.Adapter.Health(), adapter.ErrClosed) {
					return adapter.Position{}, 0, errNotConnected
				}
				return n.Adapter.Append(ctx, channel, r)
			}
		},
	},
	{
		name: "cannot count",
		breakIt: func(n *node) {
			n.publish = func(ctx context.Context, channel string, frame []byte) (int, error) {
				count, err := n.Adapter.Publish(ctx, channel, frame)
				return min(count, -1), err
			}
		},
	},
	{
		name: "never publishes without a goroutine",
		breakIt: func(n *node) {
			n.publishAsync = func(string, []byte, adapter.Completion) bool { return false }
		},
	},
	{
		name: "interrupts for no reason",
		breakIt: func(n *node) {
			n.hear.receive = func(next adapter.Receiver, channel string, frame []byte) {
				if n.tally(channel)%5 == 0 {
					next.Interrupted(channel)
					next.Restored(channel)
				}
				next.Receive(channel, frame)
			}
		},
	},
}

// TestLiberties runs the suite on adapters that do what the contract allows.
func TestLiberties(t *testing.T) {
	for _, m := range liberties {
		t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			m.faults = breaks | cuts | moves | fails
			for _, c := range slices.Concat(adaptertest.Cases()) {
				if err := check(t, c, m, false); err != nil {
					t.Errorf("%s: %v", c.Name, err)
				}
			}
		})
	}
}
