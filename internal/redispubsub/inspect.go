package redispubsub

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/fanoutgo/fanout/internal/backoff"
)

const (
	// freshEvery is the number of periodic inspections after which one makes a
	// connection, to find out where the address leads.
	freshEvery = 3
	// firstReplaced and lastReplaced bound the time in which a connection is
	// not replaced again because its address leads to another server. An
	// address may lead to several servers in turn; then replacing does not
	// help.
	firstReplaced = time.Second
	lastReplaced  = time.Minute
)

// An inspector checks the connections in use: for each address the one that a
// link subscribes on and the one that a pipeline publishes on. A server that
// has become a replica continues to accept subscriptions and messages without
// an error, and so does a server whose address leads to another one now. So
// each server is asked for its identity, on the connection itself, every probe
// interval and when there is a suspicion. A connection that leads to the wrong
// server is closed and made again.
//
// The inspector has one goroutine, run, and one for each address that is being
// inspected.
type inspector struct {
	engine *Engine
	kick   chan struct{}

	mu       sync.Mutex // guards all below
	suspects map[string]struct{}
	busy     map[string]struct{}
	looking  map[string]struct{}  // addresses to which the client is still making a connection
	replaced map[string]*throttle // by address
	reported bool                 // it was logged that servers do not tell their identity
}

// A throttle bounds how often something is done: the pause between two times
// doubles, and is back at the minimum after a long time.
type throttle struct {
	next  time.Time
	pause backoff.Backoff
}

// may reports whether it may be done now. If so, it counts as done.
func (t *throttle) may(now time.Time) bool {
	if now.Before(t.next) {
		return false
	}
	if now.Sub(t.next) > 10*lastReplaced {
		t.pause = backoff.Backoff{First: firstReplaced, Max: lastReplaced}
	}
	t.next = now.Add(t.pause.Bound())
	t.pause.Next()
	return true
}

func (i *inspector) init(e *Engine) {
	i.engine = e
	i.kick = make(chan struct{}, 1)
	i.suspects = make(map[string]struct{})
	i.busy = make(map[string]struct{})
	i.looking = make(map[string]struct{})
	i.replaced = make(map[string]*throttle)
}

// inspectSoon makes run inspect an address now. It does not wait.
func (i *inspector) inspectSoon(addr string) {
	if addr == "" {
		return
	}
	i.mu.Lock()
	i.suspects[addr] = struct{}{}
	i.mu.Unlock()
	select {
	case i.kick <- struct{}{}:
	default:
	}
}

// run inspects until the engine closes.
func (i *inspector) run() {
	e := i.engine
	var tick <-chan time.Time
	if e.cfg.ProbeInterval > 0 {
		t := time.NewTicker(e.cfg.ProbeInterval)
		defer t.Stop()
		tick = t.C
	}
	for round := 1; ; {
		select {
		case <-i.kick:
			i.start(i.takeSuspects(), true)
		case <-tick:
			i.start(e.inUse(), round%freshEvery == 0)
			round++
		case <-e.ctx.Done():
			return
		}
		if !backoff.Sleep(e.ctx, roundPause) {
			return
		}
	}
}

func (i *inspector) takeSuspects() (addrs []string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for addr := range i.suspects {
		if _, busy := i.busy[addr]; !busy {
			addrs = append(addrs, addr)
			delete(i.suspects, addr)
		}
	}
	return addrs
}

// inUse returns the addresses of primaries that have links, or were published
// to recently.
func (e *Engine) inUse() (addrs []string) {
	in := make(map[string]struct{})
	e.mu.RLock()
	for key := range e.links {
		if key.primary == "" { // links to replicas have probes of their own; see fed
			in[key.addr] = struct{}{}
		}
	}
	e.mu.RUnlock()
	if nodes := e.topology.nodes.Load(); nodes != nil {
		for addr, p := range *nodes {
			if p.used.Swap(false) || p.trouble() != nil {
				in[addr] = struct{}{}
			}
		}
	}
	for addr := range in {
		addrs = append(addrs, addr)
	}
	return addrs
}

// start begins inspections, at most one at a time for each address. An address
// with trouble is inspected again soon.
func (i *inspector) start(addrs []string, fresh bool) {
	for _, addr := range addrs {
		i.mu.Lock()
		_, busy := i.busy[addr]
		i.busy[addr] = struct{}{}
		i.mu.Unlock()
		if busy {
			continue
		}
		i.engine.wg.Go(func() { // Close waits for run, so wg is not zero
			trouble := i.inspect(addr, fresh)
			if trouble {
				backoff.Sleep(i.engine.ctx, backoff.Max/2)
			}
			i.mu.Lock()
			delete(i.busy, addr)
			_, suspected := i.suspects[addr]
			i.mu.Unlock()
			if trouble || suspected {
				i.inspectSoon(addr)
			}
		})
	}
}

// inspect asks for the identities of the servers at the ends of the connections
// to an address, and closes connections that lead to the wrong one. With
// compare it also makes a new connection to compare them with. It reports
// whether there is trouble that it could not end.
func (i *inspector) inspect(addr string, compare bool) (trouble bool) {
	e := i.engine
	ctx, cancel := context.WithTimeout(e.ctx, e.cfg.ProbeTimeout)
	defer cancel()
	ses := e.session(addr)
	p := e.topology.pipeline(addr)
	if ses == nil && p == nil {
		return false
	}
	var heard, said *identity // on the link's connection, and on the pipeline's
	var wg sync.WaitGroup
	wg.Go(func() { heard = ask(ctx, ses) })
	if p != nil {
		wg.Go(func() {
			if id, err := p.identify(ctx); err == nil {
				said = &id
			}
		})
	}
	wg.Wait()
	i.report(heard, said)
	if ses != nil && !ses.resp3 && said != nil && said.run != "" && said.run == ses.id.run {
		heard = said // it is the same server, which cannot be asked on the link's connection
	}
	var fresh *identity
	if node := e.client.Nodes()[addr]; node != nil && (compare || wrong(heard) || wrong(said) || differ(heard, said)) {
		fresh = i.look(ctx, addr, node)
	}
	if heard != nil {
		i.judgeSession(addr, ses, heard, fresh)
	}
	if p != nil && said != nil {
		return i.judgePipeline(ctx, p, said, fresh)
	}
	return false
}

// ask asks the server of a session for its identity; nil if there is no answer.
func ask(ctx context.Context, ses *session) *identity {
	if ses == nil {
		return nil
	}
	id, err := ses.identify(ctx)
	if err != nil {
		return nil // the link finds out what is wrong
	}
	return &id
}

func wrong(id *identity) bool { return id != nil && id.replica }

func differ(a, b *identity) bool { return a != nil && b != nil && a.differs(*b) }

// judgeSession ends a link's session that leads to the wrong server.
func (i *inspector) judgeSession(addr string, ses *session, heard, fresh *identity) {
	why := heard.stale(fresh)
	if why == nil && ses.id.differs(*heard) {
		why = errReplaced // the server was replaced behind the connection
	}
	if errors.Is(why, errReplaced) && !i.mayReplace("link "+addr) {
		return
	}
	if why != nil {
		ses.end(why)
		i.engine.topology.refreshTable()
	}
}

// judgePipeline closes the connection that a pipeline publishes on if another
// one leads to the right server. Otherwise it blocks the pipeline: a replica
// accepts what is published, but subscribers do not get it.
func (i *inspector) judgePipeline(ctx context.Context, p *pipeline, said, fresh *identity) (trouble bool) {
	why := said.stale(fresh)
	if why == nil || !i.engine.topology.owns(p.addr) {
		p.blocked.Store(nil) // only an owner of slots must be a primary
		return false
	}
	i.engine.topology.refreshTable()
	p.keeper.forget()
	if said.worthwhile(fresh) {
		if errors.Is(why, errReplaced) && !i.mayReplace("pipeline "+p.addr) {
			return false
		}
		if err := p.hangUp(ctx); err == nil {
			if again, err := p.identify(ctx); err == nil && !again.replica {
				p.blocked.Store(nil)
				return false
			}
		}
	}
	if said.replica {
		p.blocked.Store(&failure{why})
	}
	return true
}

func (i *inspector) mayReplace(what string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	p := i.replaced[what]
	if p == nil {
		p = new(throttle)
		i.replaced[what] = p
	}
	return p.may(time.Now())
}

// report logs, once, what goes unnoticed where servers do not tell their
// identity.
func (i *inspector) report(ids ...*identity) {
	unknown := false
	for _, id := range ids {
		unknown = unknown || id != nil && id.unknown
	}
	i.mu.Lock()
	first := unknown && !i.reported
	i.reported = i.reported || unknown
	i.mu.Unlock()
	if first {
		i.engine.journal.Warn("the server refuses ROLE and INFO: if it becomes a replica, or its address leads to another server, " +
			"that is not noticed before its connections break")
	}
}

// look makes a connection and returns the identity of its server; nil if there
// is no answer.
func (i *inspector) look(ctx context.Context, addr string, node rueidis.Client) *identity {
	conn := i.dedicate(ctx, addr, node)
	if conn == nil {
		return nil
	}
	defer conn.Close() // it does not return to the pool: the next one must be new
	id, err := identify(ctx, conn)
	if err != nil {
		return nil
	}
	return &id
}

// dedicate returns a new connection, or nil if there is none before ctx ends.
// While the client is still making one for the address, it is not asked for
// another.
func (i *inspector) dedicate(ctx context.Context, addr string, node rueidis.Client) rueidis.DedicatedClient {
	i.mu.Lock()
	_, looking := i.looking[addr]
	i.looking[addr] = struct{}{}
	i.mu.Unlock()
	if looking {
		return nil
	}
	taken := dedicate(ctx, node, func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		delete(i.looking, addr)
	})
	select {
	case conn := <-taken:
		return conn
	case <-ctx.Done():
		return nil
	}
}

// session returns the session of the link to an address; nil if there is none.
func (e *Engine) session(addr string) *session {
	l := e.link(addr)
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.live
}
