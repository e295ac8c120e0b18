package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

// A Case tests one promise of the contract.
type Case struct {
	Name        string // such as "one-order"
	Explanation string // the promise, in a sentence or two
	Nodes       int    // how many adapters Check needs

	needs      needs
	unattached bool // the case attaches the adapters itself
	run        func(e *env)
}

// MovesHome reports whether the case moves or kills the home of a channel.
func (c Case) MovesHome() bool { return c.needs&(needMove|needFail) != 0 }

// NeedsHistory reports whether the case is about an adapter.Historian.
func (c Case) NeedsHistory() bool { return c.needs&needHistory != 0 }

// Cases returns all cases, the simple ones first. A backend that fails one may
// fail later ones for the same reason.
func Cases() []Case {
	return slices.Concat(deliveryCases, orderCases, subscriptionCases, asyncCases, closeCases, leaveCases, faultCases, historyCases, historyFaultCases)
}

// serial numbers checks, so that each uses names of its own.
var serial atomic.Int64

// Check runs the case on c.Nodes adapters and returns how they fail it. The
// error wraps errors.ErrUnsupported if the nodes lack what the case needs. In
// any case Check attaches and closes the adapters.
//
// The case stops waiting when ctx ends, so ctx should have a deadline. If the
// case has not returned some seconds later, because a call of an adapter hangs,
// Check leaves it running and returns an error with the stacks of all
// goroutines.
func (c Case) Check(ctx context.Context, nodes Nodes) error {
	if len(nodes.Adapters) != c.Nodes {
		return fmt.Errorf("%d adapters were made, %s needs %d", len(nodes.Adapters), c.Name, c.Nodes)
	}
	e := newEnv(ctx, nodes)
	done := make(chan error, 1)
	go pprof.Do(ctx, pprof.Labels(label, e.id), func(context.Context) {
		done <- e.check(c)
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	// The case now stops by itself, unless it hangs.
	select {
	case err := <-done:
		return err
	case <-time.After(grace):
		return fmt.Errorf("%s hangs; the goroutines:\n\n%s", c.Name, stacks())
	}
}

// grace is how long a case may take to return after the end of its context.
const grace = 6 * time.Second

// label is the profiler label of the goroutines of a check, and of those that
// adapters start from them.
const label = "adaptertest"

// check runs the case and cleans up.
func (e *env) check(c Case) (err error) {
	defer func() {
		if r := recover(); r != nil {
			f, ok := r.(failure)
			if !ok {
				panic(r)
			}
			err = f.err
		}
		err = errors.Join(err, e.cleanup())
	}()
	if err := e.nodesHave(c.needs); err != nil {
		return err
	}
	if !c.unattached {
		for _, n := range e.nodes {
			e.must(n.adapter.Attach(n.heard), "Attach of %v", n)
		}
	}
	c.run(e)
	return nil
}

func stacks() []byte {
	buf := make([]byte, 1<<20)
	return buf[:runtime.Stack(buf, true)]
}

func nextID() string { return strconv.FormatInt(serial.Add(1), 36) }
