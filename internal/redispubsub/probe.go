package redispubsub

import (
	"context"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/internal/wire"
)

// A probe finds out whether messages still arrive on an idle link: a connection
// can be open and deliver nothing. It publishes to a channel of the link's own,
// through the way that all messages take, and expects to receive that. Anything
// else that the server sends meanwhile counts too, so a busy link is never
// probed. (The inspector checks that the server is still the right one.) Only
// session.serve uses it.
type probe struct {
	link  *link
	fed   *fed // nil: the link is to a primary
	timer *time.Timer
	seen  uint64    // link.heard at the last tick
	since time.Time // when the unanswered probe was sent; zero: there is none
	idle  int       // ticks without seats
	ticks int
}

// verifyTicks is the number of ticks after which a link checks that its node
// still owns the slots, where nodes do not say so themselves.
const verifyTicks = 3

func newProbe(ses *session) *probe {
	l := ses.link
	interval := l.engine.cfg.ProbeInterval
	if interval < 0 {
		interval = time.Hour // idle links are still removed
	}
	return &probe{link: l, fed: ses.fed, timer: time.NewTimer(interval), seen: l.heard.Load()}
}

func (p *probe) stop() { p.timer.Stop() }

// tick is called when the timer fires. An error ends the connection.
func (p *probe) tick() error {
	cfg := p.link.engine.cfg
	if cfg.ProbeInterval < 0 {
		p.timer.Reset(time.Hour)
	} else {
		p.timer.Reset(cfg.ProbeInterval)
	}
	if p.link.unused() {
		if p.idle++; p.idle > 1 {
			return errIdle
		}
		return nil
	}
	p.idle = 0
	if cfg.ProbeInterval < 0 {
		return nil
	}
	if p.fed != nil {
		return p.fed.check()
	}
	if !p.link.engine.mode.redirects() {
		if p.ticks++; p.ticks%verifyTicks == 0 {
			p.link.engine.topology.verifyLater(p.link)
		}
	}
	heard := p.link.heard.Load()
	switch {
	case heard != p.seen:
		p.seen, p.since = heard, time.Time{}
	case p.since.IsZero():
		p.since = time.Now()
		p.send()
	case time.Since(p.since) > cfg.ProbeTimeout:
		return fmt.Errorf("%w: a probe %v ago did not arrive", errSilent, time.Since(p.since).Round(time.Millisecond))
	default:
		p.send() // the last one may have been lost on the way to the server
	}
	return nil
}

// send publishes to the link's probe channel, after subscribing to it if
// necessary. It does not wait: what matters is whether the link receives
// something.
func (p *probe) send() {
	l, e := p.link, p.link.engine
	channel := l.probeChannel()
	if channel == "" {
		return
	}
	e.wg.Go(func() {
		ctx, cancel := context.WithTimeout(e.ctx, e.cfg.ProbeTimeout)
		defer cancel()
		n, _, err := e.send(ctx, channel, []byte("probe"))
		if err == nil && n == 0 {
			e.topology.verifyLater(l) // the slot may be at another node now
		}
	})
}

// probeChannel returns the link's probe channel, which is in the slot of a
// channel that is wanted here. If there is none yet it is subscribed, and the
// result is "": the confirmation serves as a probe.
func (l *link) probeChannel() string {
	l.mu.Lock()
	channel, added := l.seats.Probe(func(host string) string {
		return wire.SameSlot(host, ":probe:"+l.engine.id+":"+l.addr)
	})
	l.mu.Unlock()
	if added {
		l.wake()
	}
	return channel
}
