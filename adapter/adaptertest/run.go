package adaptertest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

// Options are options of [Run]. Nil is the zero value, which has the defaults.
type Options struct {
	// Timeout is how long one case may take; 60 seconds by default. A case that
	// waits for something that does not happen fails after that time.
	Timeout time.Duration

	// Parallel lets cases run at the same time, as t.Parallel does, on adapters
	// of one backend: except those that move or kill a channel's home, which
	// run first, one after the other. Most cases of a backend across a network
	// wait most of the time.
	Parallel bool

	// Waive lists the names of cases that the backend is known to fail. They
	// are skipped, and the log says so. It is an error to name an unknown case.
	Waive []string

	// Only, if not nil, chooses the cases that run. It is for a backend that
	// runs the whole contract in one setting, and in others what may differ.
	Only func(Case) bool
}

// Run tests the contract, each case in a subtest of its name. For each it calls
// newNodes for n adapters that are not attached; t is the subtest's, so its
// Cleanup runs when the case is over and the adapters are closed.
//
// A case that hangs fails with the stacks of all goroutines, and its goroutines
// are left running.
func Run(t *testing.T, newNodes func(t testing.TB, n int) Nodes, o *Options) {
	t.Helper()
	var opts Options
	if o != nil {
		opts = *o
	}
	if opts.Timeout == 0 {
		opts.Timeout = time.Minute
	}
	cases := Cases()
	for _, name := range opts.Waive {
		if !slices.ContainsFunc(cases, func(c Case) bool { return c.Name == name }) {
			t.Errorf("adaptertest: waived is %q, which is not the name of a case", name)
		}
	}
	for _, c := range cases {
		if opts.Only != nil && !opts.Only(c) {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			if slices.Contains(opts.Waive, c.Name) {
				t.Skipf("WAIVED. The contract: %s", c.Explanation)
			}
			if opts.Parallel && !c.MovesHome() {
				t.Parallel()
			}
			ctx, cancel := context.WithTimeout(t.Context(), opts.Timeout)
			defer cancel()
			err := c.Check(ctx, newNodes(t, c.Nodes))
			switch {
			case errors.Is(err, errors.ErrUnsupported):
				t.Skip(err)
			case err != nil:
				t.Errorf("%v\n\nThe contract: %s", err, c.Explanation)
			}
		})
	}
}
