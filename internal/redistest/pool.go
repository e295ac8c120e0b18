package redistest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// A pool keeps containers whose fleet was closed for fleets that start later.
// To start a container and to remove it takes some 0.6 s of processor time, and
// the tests of a package need hundreds. What stays is the container and its
// address: the server was ended, and supervise has started a new one, without
// data and, in a cluster, with a new ID. It has the arguments of the old one,
// as the next fleet is likely to want; if that wants others, it is replaced
// again.
//
// [Main] opens the pool, and closes it. While it is open all fleets share a
// network.
type pool struct {
	mu     sync.Mutex
	open   bool
	bridge *bridge             // nil before the first fleet
	idle   []*containerMachine // the one that waits longest is the first
	timer  *time.Timer         // of the next prune
	failed error               // of prunes

	removing sync.WaitGroup // Add is called with mu held, while the pool is open
}

var recycled pool

// The pool keeps at most keptContainers containers, each for keptContainer. A
// server that waits takes some 0.2 % of a processor.
const (
	keptContainers = 32
	keptContainer  = time.Minute
)

// begin opens the pool.
func (p *pool) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = true
}

// network returns the network that fleets share; nil if the pool is not open.
func (p *pool) network(ctx context.Context) (*bridge, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.open || p.bridge != nil {
		return p.bridge, nil
	}
	var err error
	p.bridge, err = newBridge(ctx)
	return p.bridge, err
}

// put gives the pool containers whose servers have been ended. It returns those
// that the caller has to remove, if there are too many.
func (p *pool) put(all []*containerMachine) (surplus []*containerMachine) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.open {
		return all
	}
	for _, m := range all {
		m.idleSince = time.Now()
	}
	p.idle = append(p.idle, all...)
	if n := len(p.idle) - keptContainers; n > 0 {
		surplus = slices.Clone(p.idle[:n])
		p.idle = slices.Delete(p.idle, 0, n)
	}
	p.schedule()
	return surplus
}

// take returns a container that runs the job, else one that could, or nil.
func (p *pool) take(j *job) *containerMachine {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, fits := range []func(*job) bool{j.same, j.sameImage} {
		for i, m := range p.idle {
			if fits(m.job) {
				p.idle = slices.Delete(p.idle, i, i+1)
				return m
			}
		}
	}
	return nil
}

// schedule makes prune run when the first container has waited for
// keptContainer.
func (p *pool) schedule() {
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	if len(p.idle) > 0 && p.open {
		p.timer = time.AfterFunc(time.Until(p.idle[0].idleSince.Add(keptContainer)), p.prune)
	}
}

// prune removes containers that nobody has needed for keptContainer.
func (p *pool) prune() {
	p.mu.Lock()
	if !p.open { // end removes them
		p.mu.Unlock()
		return
	}
	n := 0
	for n < len(p.idle) && time.Since(p.idle[n].idleSince) >= keptContainer {
		n++
	}
	old := slices.Clone(p.idle[:n])
	p.idle = slices.Delete(p.idle, 0, n)
	p.schedule()
	p.removing.Add(1)
	p.mu.Unlock()
	defer p.removing.Done()
	if err := removeAll(old); err != nil {
		p.mu.Lock()
		p.failed = errors.Join(p.failed, err)
		p.mu.Unlock()
	}
}

// end closes the pool, and removes its containers and its network. Fleets have
// been closed before.
func (p *pool) end() error {
	p.mu.Lock()
	p.open = false
	p.schedule()
	idle, b := p.idle, p.bridge
	p.idle, p.bridge = nil, nil
	p.mu.Unlock()
	p.removing.Wait()
	err := errors.Join(p.failed, removeAll(idle))
	if b == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return errors.Join(err, b.close(ctx))
}

func removeAll(all []*containerMachine) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return each(all, func(_ int, m *containerMachine) error { return m.remove(ctx) })
}
