package redispubsub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/redis/rueidis"
)

const (
	slots = wire.Slots
	// roundPause is the least time between two rounds of questions.
	roundPause = 30 * time.Millisecond
	// refreshEvery is how often who publishes classic Pub/Sub in a cluster asks
	// who owns what: PUBLISH is not redirected.
	refreshEvery = 2 * time.Second
	// askTimeout bounds one question to one node.
	askTimeout = 500 * time.Millisecond
	// surveyPause is how long the first that answer wait for the majority.
	surveyPause = 50 * time.Millisecond
	// askAtOnce is the most nodes that a round asks.
	askAtOnce = 8
)

// A topology finds homes for subs that have none, or whose home does not
// answer. It asks the nodes only when there is a reason. A node's word that it
// does not own a slot is final; whom it names instead may be wrong, and is then
// corrected by that one's MOVED.
//
// One goroutine, run; the other methods may be called by anyone and do not wait.
type topology struct {
	engine  *Engine
	kick    chan struct{}
	current atomic.Pointer[table]
	known   chan struct{} // closed when there is a first table
	once    sync.Once
	nodes   atomic.Pointer[map[string]*pipeline] // as the client knows them
	failure atomic.Pointer[failure]              // why nobody has answered the latest round; nil: somebody has

	nudging atomic.Bool // the client is being asked for the homes of channels

	mu      sync.Mutex // guards all below
	doubted map[*link]struct{}
	nudges  map[string]struct{} // channels whose home the client does not know
	stale   bool                // what we know has turned out wrong
}

func (t *topology) init(e *Engine) {
	t.engine = e
	t.kick = make(chan struct{}, 1)
	t.known = make(chan struct{})
	t.doubted = make(map[*link]struct{})
}

// owner returns the address of a slot's owner, or "" if it is not known.
func (t *topology) owner(slot uint16) string {
	if tab := t.current.Load(); tab != nil {
		return tab.at(slot)
	}
	return ""
}

// note notes that a slot has another owner. If we have never heard of that one it
// is time to ask.
func (t *topology) note(slot uint16, addr string) {
	if tab := t.current.Load(); tab != nil && !tab.note(slot, addr) {
		t.distrust()
	}
}

var (
	errNoNodes = errors.New("the cluster has no slots, or its nodes do not answer")
	errNoOwner = errors.New("no node of the cluster owns the slot")
)

// trouble says why a sub has no home.
func (t *topology) trouble() error {
	switch f := t.failure.Load(); {
	case f != nil:
		return explain(f.err)
	case t.current.Load() == nil:
		return errDialing
	}
	return errNoOwner
}

// ask has the topology look for homes.
func (t *topology) ask() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// doubt has the node of a link asked whether it owns what is subscribed there.
func (t *topology) doubt(l *link) {
	t.mu.Lock()
	t.doubted[l] = struct{}{}
	t.mu.Unlock()
	t.ask()
}

// keepDoubting is doubt for when it is time for another round.
func (t *topology) keepDoubting(l *link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.doubted[l] = struct{}{}
}

// distrust has all asked anew: a node did not answer a publisher, or as one that
// does not own the slot.
func (t *topology) distrust() {
	t.mu.Lock()
	t.stale = true
	t.mu.Unlock()
	t.ask()
}

// client returns the client of a node, or nil.
func (t *topology) client(addr string) rueidis.Client {
	if p := t.pipeline(addr); p != nil {
		return *p.client.Load()
	}
	return nil
}

// pipeline returns the way to a node, or nil.
func (t *topology) pipeline(addr string) *pipeline {
	if nodes := t.nodes.Load(); nodes != nil {
		return (*nodes)[addr]
	}
	return nil
}

// meet notes the nodes that the client knows. Links to one that it has dropped
// are doubted: with Sentinel the primary is elsewhere now, and in a cluster others
// know more.
func (t *topology) meet(clients map[string]rueidis.Client) {
	nodes := make(map[string]*pipeline, len(clients))
	for addr, client := range clients {
		p := t.pipeline(addr)
		if p == nil {
			p = &pipeline{engine: t.engine, addr: addr}
		}
		p.client.Store(&client)
		nodes[addr] = p
	}
	before := t.nodes.Swap(&nodes)
	if before == nil {
		return
	}
	for addr := range *before {
		if nodes[addr] != nil {
			continue
		}
		t.engine.mu.RLock()
		l := t.engine.links[addr]
		t.engine.mu.RUnlock()
		if l != nil {
			t.doubt(l)
			t.engine.inspector.suspect(addr)
		}
	}
}

// owns reports whether an address is taken for the owner of slots.
func (t *topology) owns(addr string) bool {
	tab := t.current.Load()
	if tab == nil {
		return false
	}
	n := slices.Index(tab.addrs, addr)
	for slot := range tab.owner {
		if n > 0 && tab.owner[slot].Load() == uint32(n) {
			return true
		}
	}
	return false
}

// troubles says what is wrong with the nodes that are published to.
func (t *topology) troubles() (errs []error) {
	tab := t.current.Load()
	if tab == nil {
		return nil
	}
	for _, addr := range tab.addrs[1:] {
		if p := t.pipeline(addr); p != nil && t.owns(addr) {
			if err := p.trouble(); err != nil {
				errs = append(errs, fmt.Errorf("%s: publishing to %s: %w", t.engine.cfg.Name, addr, err))
			}
		}
	}
	return errs
}

// refreshClient has the client learn of the node that a channel lives on, which
// it does not know yet.
func (t *topology) refreshClient(channel string) {
	t.mu.Lock()
	if t.nudges == nil {
		t.nudges = make(map[string]struct{})
	}
	if len(t.nudges) < maxNudges {
		t.nudges[channel] = struct{}{}
	}
	t.mu.Unlock()
	t.ask()
}

// node returns the way to the owner of a channel's slot.
func (t *topology) node(ctx context.Context, channel string) (*pipeline, string, error) {
	select {
	case <-t.known:
	default:
		t.ask()
		select {
		case <-t.known:
		case <-ctx.Done():
			return nil, "", context.Cause(ctx)
		case <-t.engine.ctx.Done():
			return nil, "", t.engine.errClosed()
		}
	}
	addr := t.owner(t.engine.mode.slot(channel))
	p := t.pipeline(addr)
	if p == nil {
		t.distrust()
		t.refreshClient(channel)
		return nil, "", rueidis.ErrNoSlot
	}
	return p, addr, nil
}

// run answers questions until the engine closes. While somebody has no home it
// asks again and again.
func (t *topology) run() {
	e := t.engine
	timer := time.NewTimer(0)
	defer timer.Stop()
	pause := roundPause
	refresh := time.NewTicker(refreshEvery)
	defer refresh.Stop()
	if e.mode.redirects() {
		refresh.Stop() // there the servers tell when something changes
	}
	for {
		select {
		case <-t.kick:
		case <-timer.C:
		case <-refresh.C:
			t.mu.Lock()
			t.stale = true
			t.mu.Unlock()
		case <-e.ctx.Done():
			return
		}
		switch served, sure := t.round(); {
		case !served:
			pause = min(2*pause, lastRetry)
			timer.Reset(pause)
		case !sure: // which is nothing to hurry about, or to hold up others
			pause = roundPause
			timer.Reset(lastRetry)
		default:
			pause = roundPause
			timer.Stop()
		}
		wait := time.NewTimer(roundPause)
		select {
		case <-wait.C:
		case <-e.ctx.Done():
			wait.Stop()
			return
		}
	}
}

// maxNudges bounds the channels that one round asks the client for.
const maxNudges = 8

// nudge asks for something in the slots of channels. The client is redirected
// to their owner, or finds that the owner it knows is gone, and then looks who
// there is. That may take long where a node is silent: nobody waits for it.
func (t *topology) nudge(channels map[string]struct{}) {
	e := t.engine
	if len(channels) == 0 || !t.nudging.CompareAndSwap(false, true) {
		return
	}
	e.wg.Go(func() {
		var wg sync.WaitGroup
		for channel := range channels {
			wg.Go(func() { t.nudgeFor(channel) })
		}
		wg.Wait()
		t.nudging.Store(false)
		t.ask() // there may be nodes to meet
	})
}

func (t *topology) nudgeFor(channel string) {
	e := t.engine
	ctx, cancel := context.WithTimeout(e.ctx, askTimeout)
	defer cancel()
	// A replica would take SPUBLISH for its primary's slots, and not say that
	// it is none.
	err := e.client.Do(ctx, e.client.B().Exists().Key(channel).Build()).Error()
	if _, refused := rueidis.IsRedisErr(err); refused && e.mode.sharded() {
		e.client.Do(ctx, e.mode.publish(e.client.B(), wire.SameSlot(channel, ":nudge:"+e.id), nil))
	}
}
