package partition

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

// Publish publishes on the room's partition. A channel that is on several
// partitions gets a copy on each; Publish returns nil if one has taken it, and
// waits for the others only briefly.
func (a *Adapter) Publish(ctx context.Context, name string, frame []byte) (receivers int, err error) {
	c := parse(name)
	v, calls, err := a.enter(ctx, c)
	if err != nil {
		return 0, fmt.Errorf("partition: publish to %q: %w", name, adapter.Unsent(err))
	}
	defer calls.Done()
	if c.wide {
		if receivers, err = a.publishCopies(ctx, v, name, c, frame); err != nil {
			return 0, fmt.Errorf("partition: publish to %q: %w", name, err)
		}
		return receivers, nil
	}
	p, err := a.part(v.cur.pick(c.key))
	if err != nil {
		return 0, fmt.Errorf("partition: publish to %q: %w", name, adapter.Unsent(err))
	}
	return p.adapter.Publish(ctx, name, frame) // its error says whether it was sent
}

// PublishAsync publishes on the room's partition, if its adapter can do so
// without waiting.
func (a *Adapter) PublishAsync(name string, frame []byte, done adapter.Completion) bool {
	c := parse(name)
	if c.wide {
		return false
	}
	a.mu.RLock()
	v := a.view
	var p *part
	var calls *sync.WaitGroup
	if !a.closed && a.receiver != nil && a.deaf == nil && !v.holds(c, a.opts.Copies) {
		if p = a.parts[v.cur.pick(c.key)]; p != nil && p.async != nil {
			calls = v.count(c, a.opts.Copies)
		}
	}
	a.mu.RUnlock()
	if p == nil || p.async == nil {
		return false
	}
	d := completions.Get().(*completion)
	d.calls, d.done = calls, done
	if !p.async.PublishAsync(name, frame, d) {
		d.release()
		return false
	}
	return true
}

// A completion is a PublishAsync under way.
type completion struct {
	calls *sync.WaitGroup
	done  adapter.Completion
}

var completions = sync.Pool{New: func() any { return new(completion) }}

func (d *completion) Complete(receivers int, err error) {
	done := d.done
	d.release()
	done.Complete(receivers, err)
}

func (d *completion) release() {
	d.calls.Done()
	*d = completion{}
	completions.Put(d)
}

const (
	// copyGrace is how long Publish waits for the other copies once a partition
	// has taken one. A copy may take copyTimeout.
	copyGrace   = 100 * time.Millisecond
	copyTimeout = 5 * time.Second
)

// errBusy means that a partition gets no copy because it has not taken the one
// before.
var errBusy = errors.New("the partition has not taken the frame before")

// errUnhealthy means that a partition gets no copy because it is not healthy
// and another one is.
var errUnhealthy = errors.New("the partition is not healthy")

// A copyResult is how publishing a copy on a partition ended.
type copyResult struct {
	receivers int
	err       error
}

// publishCopies publishes a frame on several partitions. It leaves out those
// that are not healthy, unless none is healthy.
func (a *Adapter) publishCopies(ctx context.Context, v *view, name string, c channel, frame []byte) (int, error) {
	var parts, healthy []*part
	var errs []error
	for _, home := range v.cur.homes(c, a.opts.Copies) {
		p, err := a.part(home)
		if err != nil {
			errs = append(errs, adapter.Unsent(err))
			continue
		}
		parts = append(parts, p)
		if p.problem() == nil {
			healthy = append(healthy, p)
		}
	}
	whole := len(errs) == 0
	if len(healthy) > 0 {
		for _, p := range parts {
			if !slices.Contains(healthy, p) {
				errs, whole = append(errs, adapter.Unsent(errUnhealthy)), false
			}
		}
		parts = healthy
	}
	frame = sealCopy(a.id, a.number.Add(1), frame)
	results := make(chan copyResult, len(parts))
	for _, p := range parts {
		a.sendCopy(p, name, frame, results)
	}
	return a.awaitCopies(ctx, results, len(parts), whole, errs)
}

// sendCopy publishes a copy in the background, for no longer than copyTimeout.
func (a *Adapter) sendCopy(p *part, name string, frame []byte, results chan<- copyResult) {
	p.mu.Lock()
	busy := p.copying[name]
	p.copying[name] = true
	p.mu.Unlock()
	if busy {
		results <- copyResult{err: adapter.Unsent(errBusy)}
		return
	}
	s := &copySent{part: p, name: name, results: results}
	if p.async != nil && p.async.PublishAsync(name, frame, s) {
		return
	}
	if !a.goIfOpen(func() {
		ctx, cancel := context.WithTimeout(a.ctx, copyTimeout)
		defer cancel()
		s.Complete(p.adapter.Publish(ctx, name, frame))
	}) {
		s.Complete(0, adapter.Unsent(adapter.ErrClosed))
	}
}

// A copySent is a copy under way.
type copySent struct {
	part    *part
	name    string
	results chan<- copyResult // has room for it
}

func (s *copySent) Complete(receivers int, err error) {
	s.part.mu.Lock()
	delete(s.part.copying, s.name)
	s.part.mu.Unlock()
	s.results <- copyResult{receivers, err}
}

// awaitCopies waits until all partitions have taken their copies. Once one has,
// it waits only for copyGrace.
func (a *Adapter) awaitCopies(ctx context.Context, results <-chan copyResult, n int, whole bool, errs []error) (int, error) {
	var grace <-chan time.Time
	taken, receivers, counted := 0, 0, true
	for range n {
		select {
		case r := <-results:
			if r.err != nil {
				errs, whole = append(errs, r.err), false
				continue
			}
			taken++
			counted = counted && r.receivers >= 0
			receivers = max(receivers, r.receivers)
			if grace == nil {
				grace = time.After(copyGrace)
			}
			continue
		case <-grace:
			whole = false
		case <-ctx.Done():
			if taken == 0 {
				return 0, context.Cause(ctx)
			}
			whole = false
		}
		break
	}
	switch {
	case taken == 0:
		return 0, joined(errs)
	case receivers == 0 && !(whole && counted):
		return -1, nil
	}
	return receivers, nil
}

// joined joins errors such that the result wraps ErrUnsent, and ErrRefused,
// only if all do.
func joined(errs []error) error {
	e := partial{error: errors.Join(errs...)}
	for _, of := range []error{adapter.ErrUnsent, adapter.ErrRefused} {
		if slices.ContainsFunc(errs, func(err error) bool { return !errors.Is(err, of) }) {
			e.not = append(e.not, of)
		}
	}
	if len(e.not) == 0 {
		return e.error
	}
	return e
}

// A partial is an error that hides some of the errors that its causes wrap.
type partial struct {
	error
	not []error
}

func (e partial) Is(target error) bool {
	return !slices.Contains(e.not, target) && errors.Is(e.error, target)
}
