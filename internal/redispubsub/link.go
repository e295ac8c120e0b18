package redispubsub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/internal/backoff"
	"github.com/fanoutgo/fanout/internal/redispubsub/feed"
	"github.com/fanoutgo/fanout/internal/redispubsub/seats"
	"github.com/fanoutgo/fanout/internal/wire"
)

// A link is the connection to one node for subscriptions. It is made again when
// it breaks. The table of seats decides what the node is asked for; only the
// link's goroutine, run, sends it. A link without seats is removed. A link to a
// replica that cannot be made, or turns out to be late, loses its seats; see
// leave.
type link struct {
	linkKey
	engine *Engine
	since  time.Time
	kick   chan struct{} // capacity 1: the table has something to send
	heard  atomic.Uint64 // number of messages and notices from the server

	mu         sync.Mutex // guards all below
	seats      *seats.Table[*sub]
	claims     int       // callers of Engine.claim that are about to add a seat
	live       *session  // nil: there is no connection
	down       error     // why; nil: there is one
	answer     error     // to the last attempt to subscribe that failed; nil: none since one succeeded
	complained time.Time // when the log was last told of a refusal
	lostSince  time.Time // since when the node has said that it lost slots; zero: it has not
}

var (
	errNoNode  = errors.New("no longer a node of the cluster")
	errSilent  = errors.New("the server does not answer")
	errIdle    = errors.New("nothing is subscribed")
	errDialing = errors.New("connecting")
)

func newLink(e *Engine, key linkKey) *link {
	return &link{engine: e, linkKey: key, since: time.Now(), kick: make(chan struct{}, 1), seats: seats.New[*sub](), down: errDialing}
}

// unclaim ends a claim.
func (l *link) unclaim() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.claims--
}

// seat gives a sub a seat on the link.
func (l *link) seat(s *sub) {
	l.mu.Lock()
	slot := s.slot
	if l.engine.split.Load() {
		slot = wire.Slot(s.channel)
	}
	l.seats.Want(s, s.channel, slot)
	l.mu.Unlock()
	l.wake()
}

// release takes a sub off the link.
func (l *link) release(s *sub) {
	l.mu.Lock()
	l.seats.Release(s, s.channel)
	l.mu.Unlock()
	l.wake()
}

// resubscribe makes the server confirm a subscription again.
func (l *link) resubscribe(s *sub) {
	s.lost(l, false)
	l.mu.Lock()
	l.seats.Renew(s, s.channel)
	l.mu.Unlock()
	l.wake()
}

// postpone makes Next look at a sub's seat after a pause.
func (l *link) postpone(s *sub, pause time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seats.Postpone(s.channel, time.Now().Add(pause))
}

// stands reports whether a session is live and has a confirmed subscription of
// a sub.
func (l *link) stands(ses *session, s *sub) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.live == ses && l.seats.Stands(s, s.channel)
}

// nextDue returns when the first of the postponed seats is due.
func (l *link) nextDue() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seats.Due()
}

// resume makes Next look at the postponed seats that are due.
func (l *link) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seats.Resume(time.Now())
}

// lostSlotsFor returns how long the node has said that it lost slots whose
// channels are subscribed on the link. The first call begins that time.
func (l *link) lostSlotsFor() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lostSince.IsZero() {
		l.lostSince = time.Now()
	}
	return time.Since(l.lostSince)
}

// lostNoSlots notes that the node has all the slots that are subscribed.
func (l *link) lostNoSlots() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lostSince = time.Time{}
}

func (l *link) wake() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// health returns why the link is down, if it is and should not be.
func (l *link) health() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.down
}

// trouble returns why subscriptions on the link are not confirmed; nil if the
// reason is not known.
func (l *link) trouble() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down != nil {
		return explain(l.down)
	}
	return explain(l.answer)
}

// age returns how long the link has been needed.
func (l *link) age() time.Duration { return time.Since(l.since) }

// unused reports whether no subscriber has a seat on the link.
func (l *link) unused() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seats.Unused()
}

// subs returns the subs that have seats on the link.
func (l *link) subs() []*sub {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seats.Subscribers()
}

// anyChannel returns a channel whose home is believed to be the link.
func (l *link) anyChannel() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seats.AnyChannel()
}

// run keeps the link connected until it has no seats or the engine closes. The
// first attempt to connect again is made at once.
func (l *link) run() {
	e := l.engine
	var pause backoff.Backoff
	atOnce, connected := true, false
	for e.ctx.Err() == nil {
		e.topology.ask() // other nodes may own its slots by now
		ses, err := l.connect()
		if err != nil {
			l.broke(err)
			l.leave(err)
		} else {
			if connected {
				e.journal.Info("link is back", "node", l.addr)
			}
			connected = true
			e.readers.settle(l)
			if l.use(ses) > backoff.Max { // a session that ends at once does not reset the pauses
				atOnce = true
				pause.Reset()
			}
		}
		if l.retire() {
			return
		}
		if !atOnce {
			pause.Wait(e.ctx)
		}
		atOnce = false
	}
	l.broke(e.ctx.Err())
}

// use serves a session until it ends, and returns how long that took.
func (l *link) use(ses *session) time.Duration {
	e := l.engine
	began := time.Now()
	err := ses.serve()
	lasted := time.Since(began)
	l.broke(err)
	l.hangUp(ses)
	switch {
	case errors.Is(err, errIdle) || e.ctx.Err() != nil:
	case errors.Is(err, feed.ErrLate) || errors.Is(err, feed.ErrLost):
		l.leave(err)
	default:
		e.journal.Warn("link broke, connecting again", "node", l.addr, "error", explain(err))
	}
	return lasted
}

// retire ends a link that is no longer needed.
func (l *link) retire() bool {
	e := l.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.claims > 0 || !l.seats.Unused() {
		return false
	}
	if e.links[l.linkKey] == l {
		delete(e.links, l.linkKey)
	}
	return true
}

// broke notes that the connection is gone, and with it all subscriptions.
func (l *link) broke(err error) {
	l.mu.Lock()
	l.live, l.down, l.answer = nil, err, nil
	lost := l.seats.Broke()
	l.mu.Unlock()
	for _, s := range lost {
		s.lost(l, false)
	}
}

// exchange returns the context of one exchange with the server.
func (l *link) exchange() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(l.engine.ctx, l.engine.cfg.ProbeTimeout,
		fmt.Errorf("%w within %v", errSilent, l.engine.cfg.ProbeTimeout))
}
