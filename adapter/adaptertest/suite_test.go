package adaptertest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout/adapter/adaptertest"
	"github.com/fanoutgo/fanout/adapter/memory"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestIntact shows that the wrapping of mutants has no fault: a node that
// nothing has broken keeps the whole contract.
func TestIntact(t *testing.T) {
	adaptertest.Run(t, func(t testing.TB, n int) adaptertest.Nodes {
		nodes, end := (&world{}).nodes(n, mutant{faults: breaks | cuts | moves | fails})
		t.Cleanup(end)
		return nodes
	}, nil)
}

// TestMutants runs the suite on adapters that are broken in one way each. The
// case for that must fail, and say why, and no other may.
func TestMutants(t *testing.T) {
	for _, m := range mutants {
		t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			if !slices.ContainsFunc(adaptertest.Cases(), func(c adaptertest.Case) bool { return c.Name == m.fails }) {
				t.Fatalf("no case is called %q", m.fails)
			}
			for _, c := range adaptertest.Cases() {
				if m.history && !c.NeedsHistory() {
					continue // what it breaks is not used there
				}
				expected := c.Name == m.fails || slices.Contains(m.also, c.Name)
				if testing.Short() && !expected {
					continue
				}
				err := check(t, c, m, expected)
				switch {
				case errors.Is(err, errors.ErrUnsupported) && !expected:
				case err == nil && expected:
					t.Errorf("%s does not notice", c.Name)
				case err != nil && !expected:
					t.Errorf("%s fails as well: %v", c.Name, err)
				case c.Name == m.fails && !strings.Contains(err.Error(), m.says):
					t.Errorf("%s fails without saying %q: %v", c.Name, m.says, err)
				}
			}
		})
	}
}

// check runs one case on a new world of mutants, in a bubble whose clock moves
// as soon as everybody waits. Where a failure is expected nothing is gained by
// waiting for long.
func check(t *testing.T, c adaptertest.Case, m mutant, expected bool) (err error) {
	timeout := 20 * time.Second
	if expected {
		timeout = 1500 * time.Millisecond
	}
	synctest.Test(t, func(*testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		nodes, end := (&world{}).nodes(c.Nodes, m)
		err = c.Check(ctx, nodes)
		end()
		time.Sleep(time.Second) // calls that Check has left behind see that it is the end
	})
	return err
}

// TestEveryCaseHasAMutant fails for a case that no mutant breaks.
func TestEveryCaseHasAMutant(t *testing.T) {
	for _, c := range adaptertest.Cases() {
		if !slices.ContainsFunc(mutants, func(m mutant) bool { return m.fails == c.Name }) {
			t.Errorf("no mutant is made to fail %s", c.Name)
		}
	}
}

func TestCases(t *testing.T) {
	seen := make(map[string]bool)
	for _, c := range adaptertest.Cases() {
		if c.Name == "" || c.Explanation == "" || c.Nodes == 0 || seen[c.Name] {
			t.Errorf("case %q, %q, of %d nodes", c.Name, c.Explanation, c.Nodes)
		}
		seen[c.Name] = true
	}
}

// TestCheckWantsItsNodes tests the wrong number of adapters.
func TestCheckWantsItsNodes(t *testing.T) {
	c := adaptertest.Cases()[0]
	if err := c.Check(t.Context(), adaptertest.Nodes{}); err == nil {
		t.Errorf("Check of %s with no adapters returned nil", c.Name)
	}
}

// TestHang tests an adapter whose call never returns: Check stops waiting and
// shows where it hangs.
func TestHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		over := make(chan struct{})
		m := mutant{breakIt: func(n *node) {
			n.subscribe = func(context.Context, string) error { <-release; return errors.New("released") }
			n.close = func(ctx context.Context) error {
				err := n.Adapter.Close(ctx)
				close(over)
				return err
			}
		}}
		nodes, end := (&world{}).nodes(1, m)
		defer end()
		for _, c := range adaptertest.Cases() {
			if c.Name != "healthy-when-confirmed" {
				continue
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			err := c.Check(ctx, nodes)
			cancel()
			if err == nil || !strings.Contains(err.Error(), "hangs") || !strings.Contains(err.Error(), "TestHang") {
				t.Errorf("Check of what hangs returned %v", err)
			}
		}
		close(release)
		<-over
	})
}

// A world is a bus and the nodes on it.
type world struct {
	bus     *memory.Bus
	members []*node
	// what becomes of histories when a home moves or dies; Bus.Failover, if nil
	failover func(lost int, whole bool)
	retained
	ghosts
	slow
}

// nodes makes n mutants, and returns a function that ends all that they
// started.
func (w *world) nodes(n int, m mutant) (nodes adaptertest.Nodes, end func()) {
	w.bus = memory.NewBus()
	for i := range n {
		b := &node{Adapter: w.bus.NewAdapter(), world: w, index: i, done: make(chan struct{})}
		if m.breakIt != nil {
			m.breakIt(b)
		}
		w.members = append(w.members, b)
		nodes.Adapters = append(nodes.Adapters, b)
	}
	nodes.Faults = w.faults(m.faults)
	return nodes, func() {
		for _, b := range w.members {
			close(b.done)
			b.own.Wait()
		}
		if err := w.bus.Close(context.Background()); err != nil {
			panic(fmt.Sprint("closing a bus in memory: ", err))
		}
	}
}

// faults returns those of the set.
func (w *world) faults(set faults) (f adaptertest.Faults) {
	cutShort := func(nodes ...*node) error {
		for _, n := range nodes {
			n.CutSubscriber()
			time.AfterFunc(20*time.Millisecond, n.Heal)
		}
		return nil
	}
	failover := func(lost int, whole bool) {
		if w.failover != nil {
			w.failover(lost, whole)
		} else {
			w.bus.Failover(lost, whole)
		}
	}
	if set&breaks != 0 {
		f.Break = func(_ context.Context, i int) error { return cutShort(w.members[i]) }
	}
	if set&cuts != 0 {
		f.Cut = func(_ context.Context, i int) error { w.members[i].setCut(true); return nil }
		f.Heal = func(_ context.Context, i int) error { w.members[i].setCut(false); return nil }
	}
	if set&moves != 0 {
		// Of the nodes some are told in good order, and some lose their
		// connection while the old home still takes frames.
		f.Move = func(ctx context.Context, _ string) error {
			for i, n := range w.members {
				if i%2 == 1 {
					_ = cutShort(n)
				}
			}
			time.Sleep(5 * time.Millisecond)
			failover(0, true)
			for i, n := range w.members {
				if i%2 == 0 {
					n.Move()
				}
			}
			return nil
		}
	}
	if set&fails != 0 {
		f.Fail = func(context.Context, string) error {
			failover(2, false)
			return cutShort(w.members...)
		}
	}
	return f
}
