package partition

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/partition/internal/rollout"
)

// A change does the work of the steps. Only control.run uses it.
type change struct {
	owner   *Adapter
	control *control
	cancel  context.CancelFunc // ends the work that is under way; nil: there is none
}

func (ch *change) init(a *Adapter, c *control) {
	ch.owner, ch.control = a, c
	for name := range a.parts {
		a.listed = append(a.listed, name)
	}
}

func (ch *change) stop() {
	if ch.cancel != nil {
		ch.cancel()
	}
}

// Change makes the given partitions the current ones, on this hub and all
// others. Each of them calls Change; it returns when all have switched.
// Partitions that are then neither given nor needed are closed. For a partition
// that this hub knows already, Adapter may be nil.
//
// If ctx ends first, Change returns an error that says what it was waiting for,
// and the change continues. Until a hub is drained, another call of Change
// replaces the change. After that Change refuses other partitions
// ([adapter.ErrRefused]) until the change is complete.
func (a *Adapter) Change(ctx context.Context, partitions []Partition) error {
	if err := a.awaitLearned(ctx); err != nil {
		return fmt.Errorf("partition: change: %w", err)
	}
	names, err := a.addParts(partitions)
	if err != nil {
		return fmt.Errorf("partition: change: %w", err)
	}
	var listed []string
	for _, p := range partitions {
		listed = append(listed, p.Name)
	}
	accepted := make(chan bool, 1)
	a.control.add(func(time.Time) { accepted <- a.control.change.want(names, listed) })
	select {
	case ok := <-accepted:
		if !ok {
			return fmt.Errorf("partition: change: %w: another change is under way, and it is too late to replace it", adapter.ErrRefused)
		}
	case <-a.ctx.Done():
		return fmt.Errorf("partition: change: %w", adapter.ErrClosed)
	}
	return a.awaitSet(ctx, names)
}

// addParts adds the partitions that are new.
func (a *Adapter) addParts(partitions []Partition) (names []string, err error) {
	a.adding.Lock() // attaching does not wait
	defer a.adding.Unlock()
	a.mu.RLock()
	names, err = a.check(partitions)
	closed := a.closed
	known := maps.Clone(a.parts)
	a.mu.RUnlock()
	if closed {
		err = adapter.ErrClosed
	}
	if err != nil {
		return nil, err
	}
	for _, p := range partitions {
		if known[p.Name] != nil {
			continue
		}
		t := newPart(a, p)
		if err := t.adapter.Attach(t); err != nil {
			return nil, fmt.Errorf("attach %q: %w", t.name, err)
		}
		a.mu.Lock()
		if closed = a.closed; !closed { // otherwise Close does not know of it
			a.parts[p.Name] = t
			a.listed = append(a.listed, p.Name) // so that it is not closed before the change begins
		}
		a.mu.Unlock()
		if closed {
			a.retire(t)
			return nil, adapter.ErrClosed
		}
		a.control.join(t)
	}
	return names, nil
}

// awaitSet waits until a set is current.
func (a *Adapter) awaitSet(ctx context.Context, names []string) error {
	for {
		a.mu.RLock()
		v := a.view
		a.mu.RUnlock()
		if v.stage == rollout.Steady && slices.Equal(v.cur.names, names) {
			return nil
		}
		select {
		case <-v.changed:
		case <-ctx.Done():
			return fmt.Errorf("partition: change: %w (%s)", context.Cause(ctx), a.control.waiting())
		case <-a.ctx.Done():
			return fmt.Errorf("partition: change: %w", adapter.ErrClosed)
		}
	}
}

// want takes what Change was given.
func (ch *change) want(names, listed []string) bool {
	m := ch.control.machine
	if !m.Want(names) {
		return false
	}
	ch.owner.mu.Lock()
	ch.owner.listed = listed
	ch.owner.mu.Unlock()
	s := m.State()
	if s.Stage == rollout.Steady && slices.Equal(s.Names, s.Want) {
		ch.steady() // a change was given up, or partitions come or leave that are not in the set
		return true
	}
	for _, r := range ch.owner.allRoutes() {
		r.follow() // partitions may have come that were missing
	}
	return true
}

// apply does what the machine has decided.
func (ch *change) apply(action rollout.Action) {
	ch.stop()
	var ctx context.Context
	ctx, ch.cancel = context.WithCancel(ch.owner.ctx)
	s := ch.control.machine.State()
	if action == rollout.Follow {
		return // the machine goes on to Opening
	}
	a := ch.owner
	if s.Epoch > 1 || s.Stage != rollout.Steady {
		a.opts.Logger.Info("partition: change of partitions", "stage", s.Stage.String(), "epoch", s.Epoch, "partitions", s.Names, "wanted", s.Want)
	}
	switch {
	case action == rollout.Adopt:
		a.rooms.forget(ch.view(), true)
		ch.steady()
	case s.Stage == rollout.Steady:
		ch.steady()
	case s.Stage == rollout.Opening:
		ch.work(ctx, s.Stage, func() { a.open(ctx, ch.view()) })
	case s.Stage == rollout.Drained:
		ch.work(ctx, s.Stage, func() { a.drain(ctx, ch.view()) })
	case s.Stage == rollout.Switched:
		v := ch.view()
		a.rooms.forget(v, false)
		a.setView(ctx, v)
		ch.work(ctx, s.Stage, func() {
			linger := time.After(a.opts.Patience / lingerPart)
			a.moveHistories(ctx, v)
			select {
			case <-linger: // for frames that are late
			case <-ctx.Done():
			}
		})
	}
	ch.control.tell()
}

// lingerPart is the part of Patience for which a hub listens to the old homes
// after the last publish there.
const lingerPart = 10

// work does the work of a stage, which ctx ends, and tells the machine when it
// is done.
func (ch *change) work(ctx context.Context, s rollout.Stage, f func()) {
	ch.owner.goIfOpen(func() {
		f()
		ch.control.add(func(time.Time) {
			if ctx.Err() == nil { // otherwise something else has been begun
				ch.control.machine.Done(s)
				ch.control.tell()
			}
		})
	})
}

// view returns the view that the machine's state asks for.
func (ch *change) view() *view {
	s := ch.control.machine.State()
	v := &view{era: s.Era, epoch: s.Epoch, stage: s.Stage, cur: newSet(s.Names)}
	if s.Stage >= rollout.Opening && s.Stage < rollout.Switched {
		v.next = newSet(s.Want)
	}
	if len(s.Old) > 0 {
		v.old = newSet(s.Old)
	}
	return v
}

// steady unsubscribes rooms from their old homes, and closes partitions that
// are no longer needed.
func (ch *change) steady() {
	a, v := ch.owner, ch.view()
	a.setView(a.ctx, v)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return // Close closes all
	}
	for name, p := range a.parts {
		if !slices.Contains(a.listed, name) && !slices.Contains(v.cur.names, name) {
			delete(a.parts, name)
			a.goIfOpen(func() { a.retire(p) })
		}
	}
}

// retire closes a partition.
func (a *Adapter) retire(p *part) {
	p.cancel()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), a.opts.Patience)
	defer cancel()
	if err := p.adapter.Close(ctx); err != nil {
		a.opts.Logger.Warn("partition: closing a partition that has left", "partition", p.name, "error", err)
	}
}

// settle is how often channels that are being subscribed are looked at.
const settle = 20 * time.Millisecond

// open also subscribes channels that move at their new homes, and waits until
// publishes that began before the change have ended.
func (a *Adapter) open(ctx context.Context, v *view) {
	a.setView(ctx, v)
	a.awaitSettled(ctx)
	// From here on Subscribe waits for both homes.
	a.setView(ctx, &view{era: v.era, epoch: v.epoch, stage: rollout.Ready, cur: v.cur, next: v.next, old: v.old})
	a.awaitSettled(ctx)
	a.mu.RLock()
	n := len(a.past) - 1 // the last is the one of Opening, which knows of the change
	a.mu.RUnlock()
	a.awaitPast(ctx, n)
}

// awaitSettled waits until the channels that move are subscribed at their new
// homes.
func (a *Adapter) awaitSettled(ctx context.Context) {
	tick := time.NewTicker(settle)
	defer tick.Stop()
	for {
		routes := slices.DeleteFunc(a.allRoutes(), (*route).settled)
		if len(routes) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// drain holds publishes to channels that move, and waits for those that are
// under way.
func (a *Adapter) drain(ctx context.Context, v *view) {
	a.setView(ctx, v)
	a.mu.RLock()
	past := slices.Clone(a.past)
	a.mu.RUnlock()
	for _, p := range past {
		a.await(ctx, &p.calls)
	}
	a.resolve(ctx, v)
}
