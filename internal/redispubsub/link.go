package redispubsub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// A link is the connection to one node for subscriptions, made again when it
// breaks. Its goroutine, run, is the only one that writes to it. A link without
// seats goes away.
type link struct {
	engine *Engine
	addr   string
	since  time.Time
	kick   chan struct{} // capacity 1: there is something dirty
	heard  atomic.Uint64 // number of things the server sent us

	mu         sync.Mutex // guards all below
	seats      map[string]*seat
	claims     int      // callers of Engine.claim that are about to seat somebody
	dirty      []*seat  // wanted and has may differ
	live       *session // nil: there is no connection
	down       error    // why; nil: there is one
	answer     error    // to the last attempt to subscribe that failed; nil: none has since one succeeded
	later      []postponed
	complained time.Time // when the log was last told of a refusal
	suspect    time.Time // since when the node has said that it lost slots; zero: it has not
}

// A seat is a channel on a link. Guarded by link.mu.
type seat struct {
	channel string
	sub     *sub // nil: not wanted, unless it is the probe's
	slot    uint16
	state   seatState
	dirty   bool
	probe   bool // the link's own; see probe.go
	alone   bool // to be asked for in a command of its own
}

func (st *seat) wanted() bool { return st.sub != nil || st.probe }

// A seatState is what the server has, as far as we know.
type seatState uint8

const (
	seatNone    seatState = iota // no subscription
	seatAsked                    // SSUBSCRIBE is sent
	seatOn                       // confirmed
	seatAgain                    // confirmed, but a new confirmation is needed
	seatLeaving                  // SUNSUBSCRIBE is sent: the next sunsubscribe is the reply
)

var (
	errNoNode  = errors.New("not a node of the cluster any more")
	errSilent  = errors.New("the server does not answer")
	errIdle    = errors.New("nothing is subscribed")
	errDialing = errors.New("connecting")
)

func newLink(e *Engine, addr string) *link {
	return &link{engine: e, addr: addr, since: time.Now(), kick: make(chan struct{}, 1), seats: make(map[string]*seat), down: errDialing}
}

// unclaim ends a claim.
func (l *link) unclaim() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.claims--
}

// seat gives a sub a place on the link.
func (l *link) seat(s *sub) {
	l.mu.Lock()
	st := l.seats[s.channel]
	if st == nil {
		st = &seat{channel: s.channel, slot: s.slot}
		l.seats[s.channel] = st
	}
	st.sub = s
	if st.state == seatOn {
		// From an earlier sub: what is under way from before must not pass for
		// what this one was promised.
		st.state = seatAgain
	}
	l.touch(st)
	l.mu.Unlock()
	l.wake()
}

// release takes a sub off the link.
func (l *link) release(s *sub) {
	l.mu.Lock()
	if st := l.seats[s.channel]; st != nil && st.sub == s {
		st.sub = nil
		l.touch(st)
	}
	l.mu.Unlock()
	l.wake()
}

// doubt has the server confirm a subscription again.
func (l *link) doubt(s *sub) {
	s.lost(l, false)
	l.mu.Lock()
	if st := l.seats[s.channel]; st != nil && st.sub == s && st.state == seatOn {
		st.state = seatAgain
		l.touch(st)
	}
	l.mu.Unlock()
	l.wake()
}

// suspected returns for how long the node has said that it lost slots whose
// channels are subscribed on the link. The first call begins it.
func (l *link) suspected() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.suspect.IsZero() {
		l.suspect = time.Now()
	}
	return time.Since(l.suspect)
}

func (l *link) trust() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.suspect = time.Time{}
}

// touch puts a seat on the list of those to look at. l.mu is held.
func (l *link) touch(st *seat) {
	if !st.dirty {
		st.dirty = true
		l.dirty = append(l.dirty, st)
	}
}

func (l *link) wake() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// health says why the link is down, if it is and should not be.
func (l *link) health() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.down
}

// trouble says what keeps subscriptions on the link from being confirmed; nil if
// nothing is known.
func (l *link) trouble() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down != nil {
		return explain(l.down)
	}
	return explain(l.answer)
}

// age is how long there has been a need for the link.
func (l *link) age() time.Duration { return time.Since(l.since) }

// Retrying a connection waits from firstRetry on, doubling up to lastRetry,
// each time between half of that and all of it. The first retry is at once.
const (
	firstRetry = 10 * time.Millisecond
	lastRetry  = 500 * time.Millisecond
)

// run keeps the link connected until it has no seats or the engine closes.
func (l *link) run() {
	e := l.engine
	delay := time.Duration(0)
	broken := false
	for e.ctx.Err() == nil {
		e.topology.ask() // while we wait for this node others may own its slots
		ses, err := l.connect()
		if ses != nil {
			began := time.Now()
			if broken {
				e.journal.add(slog.LevelInfo, "link is back", "node", l.addr)
			}
			broken = true
			err = ses.serve()
			if time.Since(began) > lastRetry { // and not one that ends as soon as it begins
				delay = 0
			}
			l.broke(err)
			l.hangUp(ses)
			if err != errIdle && e.ctx.Err() == nil {
				e.journal.add(slog.LevelWarn, "link broke, connecting again", "node", l.addr, "error", explain(err))
			}
		} else {
			l.broke(err)
		}
		if l.retire() {
			return
		}
		l.pause(delay/2 + rand.N(delay/2+1))
		delay = min(max(2*delay, firstRetry), lastRetry)
	}
	l.broke(e.ctx.Err())
}

func (l *link) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.engine.ctx.Done():
	}
}

// retire ends a link that nobody needs.
func (l *link) retire() bool {
	e := l.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.claims > 0 {
		return false
	}
	for _, st := range l.seats {
		if st.sub != nil {
			return false
		}
	}
	if e.links[l.addr] == l {
		delete(e.links, l.addr)
	}
	return true
}

// A session is one connection of a link. Its hooks are called by the
// connection's reader, and say nothing any more once the session is over: the
// connection may go on to speak for a while.
type session struct {
	link  *link
	conn  rueidis.DedicatedClient
	gone  <-chan error // gets the error, or is closed, when the connection is
	ended chan error   // capacity 1: why the session is to end
	id    identity     // of the server, before anything was subscribed
	resp3 bool         // commands reach the server on the connection that subscribes
	asks  atomic.Int32 // questions whether it is a primary that are to be answered
}

// connect makes a session with a primary. It waits as long as the client does to
// connect, or until the engine closes, and then for at most the ProbeTimeout.
func (l *link) connect() (*session, error) {
	node, ok := l.engine.client.Nodes()[l.addr]
	if !ok {
		l.engine.topology.refreshClient(l.anyChannel())
		return nil, errNoNode
	}
	ses := &session{link: l, ended: make(chan error, 1)}
	var err error
	if ses.conn, err = l.dedicate(node); err != nil {
		return nil, err
	}
	ses.gone = ses.conn.SetPubSubHooks(rueidis.PubSubHooks{OnMessage: ses.onMessage, OnSubscription: ses.onSubscription})
	select {
	case err := <-ses.gone:
		l.hangUp(ses)
		return nil, orSilent(err)
	default:
	}
	l.engine.wg.Go(func() { l.engine.askLimitOf(l.addr, node) })
	ctx, cancel := l.exchange()
	defer cancel()
	if err := ses.introduce(ctx); err != nil {
		l.hangUp(ses)
		return nil, err
	}
	l.mu.Lock()
	l.live, l.down = ses, nil
	for _, st := range l.seats {
		l.touch(st)
	}
	l.mu.Unlock()
	return ses, nil
}

// anyChannel returns a channel whose home the link is thought to be.
func (l *link) anyChannel() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for channel := range l.seats {
		return channel
	}
	return ""
}

// hangUp closes a connection. It does not wait: a silent server takes the
// client a second. Close, and never the release function, which would put the
// connection back into the pool for others, and wait for the server to do so.
func (l *link) hangUp(ses *session) {
	l.engine.wg.Go(ses.conn.Close)
}

// serve reconciles until the connection ends.
func (ses *session) serve() error {
	l := ses.link
	p := newProbe(l)
	defer p.stop()
	for {
		if err := l.reconcile(ses); err != nil {
			return err
		}
		var retry <-chan time.Time
		if due := l.nextLater(); !due.IsZero() {
			retry = time.After(time.Until(due))
		}
		select {
		case <-l.kick:
		case <-retry:
			l.touchLater()
		case err := <-ses.gone:
			return orSilent(err)
		case err := <-ses.ended:
			return err
		case <-p.timer.C:
			if err := p.tick(); err != nil {
				return err
			}
		case <-l.engine.ctx.Done():
			return l.engine.ctx.Err()
		}
	}
}

func orSilent(err error) error {
	if err == nil {
		return errSilent
	}
	return err
}

// broke notes that the connection is gone, and with it all subscriptions.
func (l *link) broke(err error) {
	l.mu.Lock()
	l.live, l.down, l.answer, l.dirty, l.later = nil, err, nil, nil, nil
	var subs []*sub
	for channel, st := range l.seats {
		st.state, st.dirty = seatNone, false
		if st.sub == nil {
			delete(l.seats, channel)
		} else {
			subs = append(subs, st.sub)
		}
	}
	l.mu.Unlock()
	for _, s := range subs {
		s.lost(l, false)
	}
}

// onMessage is called by the connection's reader. It waits for nothing but the
// locks, which are held for a short time.
func (ses *session) onMessage(m rueidis.PubSubMessage) {
	l := ses.link
	l.mu.Lock()
	var s *sub
	if st := l.seats[m.Channel]; st != nil && l.live == ses {
		s = st.sub
	}
	l.mu.Unlock()
	l.heard.Add(1)
	if s != nil {
		s.deliver(l, bytesOf(m.Message))
	}
}

// onSubscription is called by the connection's reader for confirmations and
// for notices of the server's own. It decides by what we asked for, since they
// look the same.
func (ses *session) onSubscription(ev rueidis.PubSubSubscription) {
	l := ses.link
	l.heard.Add(1)
	l.mu.Lock()
	st := l.seats[ev.Channel]
	if st == nil || l.live != ses {
		l.mu.Unlock()
		return
	}
	var confirmed, lost *sub
	work := false
	switch ev.Kind {
	case "subscribe", "ssubscribe":
		if st.state == seatAsked {
			st.state = seatOn
			confirmed = st.sub
			l.answer = nil
		}
	case "unsubscribe", "sunsubscribe":
		if st.state == seatOn || st.state == seatAgain {
			// Unsolicited: the slot has moved. Asking here again brings MOVED
			// with the new address.
			st.state = seatNone
			lost, work = st.sub, true
			l.touch(st)
		}
	}
	l.mu.Unlock()
	if confirmed != nil {
		confirmed.confirm(l)
	}
	if lost != nil {
		lost.lost(l, true)
		l.engine.topology.doubt(l)
	}
	if work {
		l.wake()
	}
}

// exchange returns the context of one exchange with the server.
func (l *link) exchange() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(l.engine.ctx, l.engine.cfg.ProbeTimeout,
		fmt.Errorf("%w within %v", errSilent, l.engine.cfg.ProbeTimeout))
}
