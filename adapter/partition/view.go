package partition

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/partition/internal/rollout"
)

// A view says on which partitions channels are, at one stage of a change. It is
// never modified, and replaced at each step.
type view struct {
	era   uint64 // of the epoch: see rollout.State
	epoch uint64 // 0: it is not known yet which set is current
	stage rollout.Stage
	cur   *set // what is published to
	next  *set // from Opening to Drained: the set that is to be
	old   *set // the set before cur; nil: not known

	// calls are publishes under way to channels that move, and rest those to
	// others. Added to under Adapter.mu, while the view is current.
	calls, rest sync.WaitGroup
	changed     chan struct{} // closed when the view is replaced
}

// moves reports whether a channel is to have other homes.
func (v *view) moves(c channel, copies int) bool {
	return v.next != nil && !slices.Equal(v.cur.homes(c, copies), v.next.homes(c, copies))
}

// count counts a publish that begins. The caller calls Done of the result when
// it has ended.
func (v *view) count(c channel, copies int) *sync.WaitGroup {
	calls := &v.rest
	if v.moves(c, copies) {
		calls = &v.calls
	}
	calls.Add(1)
	return calls
}

// holds reports whether publishes to a channel wait.
func (v *view) holds(c channel, copies int) bool {
	return v.epoch == 0 || (v.stage == rollout.Drained || v.stage == rollout.Flushed) && v.moves(c, copies)
}

// listens returns the partitions on which a channel is subscribed.
func (v *view) listens(c channel, copies int) []string {
	names := v.cur.homes(c, copies)
	if v.next != nil {
		names = append(names, v.next.homes(c, copies)...)
	}
	if v.stage == rollout.Switched && v.old != nil {
		names = append(names, v.old.homes(c, copies)...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// prospective reports whether a channel is already subscribed on a partition to
// which nothing is published yet.
func (v *view) prospective(c channel, copies int, name string) bool {
	return v.next != nil && v.stage < rollout.Drained && !slices.Contains(v.cur.homes(c, copies), name)
}

// missing returns the names of the current set that have no adapter. The caller
// holds mu.
func (a *Adapter) missing(v *view) []string {
	if v.epoch == 0 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(v.cur.names), func(name string) bool { return a.parts[name] != nil })
}

// enter waits until a publish may begin, and returns the view for it. The
// caller calls Done of the WaitGroup when the publish has ended.
func (a *Adapter) enter(ctx context.Context, c channel) (*view, *sync.WaitGroup, error) {
	for {
		a.mu.RLock()
		v, deaf, closed, attached := a.view, a.deaf, a.closed, a.receiver != nil
		if !closed && attached && deaf == nil && ctx.Err() == nil && !v.holds(c, a.opts.Copies) {
			calls := v.count(c, a.opts.Copies)
			a.mu.RUnlock()
			return v, calls, nil
		}
		a.mu.RUnlock()
		switch {
		case closed:
			return nil, nil, adapter.ErrClosed
		case !attached:
			return nil, nil, errUnattached
		}
		held := v.changed
		if deaf != nil {
			held = deaf
		}
		select {
		case <-held:
		case <-ctx.Done():
			if waits := a.control.waiting(); waits != "" {
				return nil, nil, fmt.Errorf("%w (the adapter: %s)", context.Cause(ctx), waits)
			}
			return nil, nil, context.Cause(ctx)
		case <-a.ctx.Done():
			return nil, nil, adapter.ErrClosed
		}
	}
}

// part returns a partition.
func (a *Adapter) part(name string) (*part, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if p := a.parts[name]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("partition %q: %w", name, errMissing)
}

// setView replaces the view, unless ctx has ended, and begins to subscribe all
// channels on the partitions that it names.
func (a *Adapter) setView(ctx context.Context, v *view) {
	v.changed = make(chan struct{})
	a.mu.Lock()
	if ctx.Err() != nil {
		a.mu.Unlock()
		return
	}
	was := a.view
	a.view = v
	a.past = append(a.past, was)
	a.mu.Unlock()
	close(was.changed)
	for _, r := range a.allRoutes() {
		r.follow()
	}
}

// allRoutes returns the channels that are subscribed.
func (a *Adapter) allRoutes() []*route {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return slices.Collect(maps.Values(a.routes))
}

// awaitPast waits for the publishes that began under the first n of the earlier
// views, or until ctx ends.
func (a *Adapter) awaitPast(ctx context.Context, n int) {
	a.mu.RLock()
	past := slices.Clone(a.past[:max(n, 0)])
	a.mu.RUnlock()
	for _, v := range past {
		a.await(ctx, &v.calls)
		a.await(ctx, &v.rest)
	}
	if ctx.Err() == nil {
		a.mu.Lock()
		a.past = slices.Clone(a.past[len(past):])
		a.mu.Unlock()
	}
}

// await waits for calls, or until ctx ends.
func (a *Adapter) await(ctx context.Context, calls *sync.WaitGroup) {
	done := make(chan struct{})
	if !a.goIfOpen(func() {
		calls.Wait()
		close(done)
	}) {
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}
