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
	Name        string // in the form of one-order
	Explanation string // the promise, in a sentence or two
	Nodes       int    // how many adapters Check needs

	needs      needs
	unattached bool // run attaches
	run        func(e *env)
}

// Cases returns all cases, the simple ones first. A backend that fails one may
// well fail those after it for the same reason.
func Cases() []Case {
	return slices.Concat(deliveryCases, orderCases, subscriptionCases, asyncCases, closeCases, leaveCases, faultCases, historyCases, historyFaultCases)
}

// serial tells checks apart, and makes names that are used once in a process.
var serial atomic.Int64

// Check runs the case on c.Nodes adapters and returns how they fail it. The
// error wraps errors.ErrUnsupported if the nodes lack what the case needs.
// Either way it attaches and closes the adapters.
//
// Conditions that do not come true are given up when ctx ends, so ctx should
// have a deadline. If the case is still not over some seconds later, because a
// call of an adapter does not return, Check leaves it behind and returns an
// error with the stacks of all goroutines.
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
	// The case now gives up by itself, unless it hangs.
	select {
	case err := <-done:
		return err
	case <-time.After(grace):
		return fmt.Errorf("%s hangs; the goroutines:\n\n%s", c.Name, stacks())
	}
}

// grace is what a case gets after the end of its time to give up by itself.
const grace = 6 * time.Second

// label is the profiler label that the goroutines of a check carry, and those
// that adapters start from them.
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
