package redispubsub

import (
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/redis/rueidis"
)

const (
	// A batch is what is written at once before the replies are awaited.
	batchChannels = 4096
	// A command names so many channels at most, and one slot.
	commandChannels = 256

	// retryPause is the wait before something is asked again that the server
	// cannot answer just now.
	retryPause = 50 * time.Millisecond
	// refusedPause is the same for what is refused, and complainEvery how often
	// the log says so.
	refusedPause  = time.Second
	complainEvery = time.Minute
)

// A command is one SUBSCRIBE or UNSUBSCRIBE, or their sharded kin.
type command struct {
	leave bool
	seats []*seat
	names []string
}

func (c *command) subscribes() bool { return !c.leave }

// reconcile asks the server for what is wanted until nothing is dirty. It
// returns an error when the connection is of no more use.
func (l *link) reconcile(ses *session) error {
	conn := ses.conn
	for {
		commands := l.next()
		if len(commands) == 0 {
			return nil
		}
		built := make(rueidis.Commands, len(commands))
		for i, c := range commands {
			built[i] = l.engine.mode.build(conn.B(), c)
		}
		ctx, cancel := l.exchange()
		results := conn.DoMulti(ctx, built...)
		cancel()
		kept := false
		for i, c := range commands {
			if err := results[i].NonRedisError(); err != nil {
				return err
			}
			kept = kept || c.leave && results[i].Error() != nil
			if err := l.settle(c, results[i].Error()); err != nil {
				return err
			}
		}
		if kept && l.unused() {
			return errIdle // a replica answers MOVED, and keeps the subscription: only this ends it
		}
		if slices.ContainsFunc(commands, (*command).subscribes) {
			ses.check()
		}
	}
}

// next takes dirty seats and returns the commands for them.
func (l *link) next() []*command {
	l.mu.Lock()
	defer l.mu.Unlock()
	var commands []*command
	type key struct {
		slot  uint16
		leave bool
	}
	open := make(map[key]*command)
	n := min(len(l.dirty), batchChannels)
	for _, st := range l.dirty[:n] {
		st.dirty = false
		switch {
		case st.wanted() && (st.state == seatNone || st.state == seatAgain):
			st.state = seatAsked
		case !st.wanted() && st.state == seatNone:
			if l.seats[st.channel] == st {
				delete(l.seats, st.channel)
			}
			continue
		case !st.wanted() && st.state != seatLeaving:
			st.state = seatLeaving
		default:
			continue
		}
		k := key{st.slot, st.state == seatLeaving}
		c := open[k]
		if c == nil || len(c.names) == commandChannels || st.alone {
			c = &command{leave: k.leave}
			if !st.alone {
				open[k] = c
			}
			commands = append(commands, c)
		}
		c.seats = append(c.seats, st)
		c.names = append(c.names, st.channel)
	}
	if l.dirty = l.dirty[n:]; len(l.dirty) == 0 {
		l.dirty = nil
	}
	return commands
}

func (m mode) build(b rueidis.Builder, c *command) rueidis.Completed {
	if c.leave {
		return m.unsubscribe(b, c.names)
	}
	return m.subscribe(b, c.names)
}

// settle notes the reply to a command. Confirmations of single channels come
// through onSubscription. An error means that the connection leads to the wrong
// server.
func (l *link) settle(c *command, err error) error {
	if c.leave { // an error, too: the server has no subscription, or reconcile ends it
		l.mu.Lock()
		for _, st := range c.seats {
			st.state = seatNone
			l.touch(st)
		}
		l.mu.Unlock()
		return nil
	}
	if err == nil {
		return nil
	}
	l.mu.Lock()
	subs := make([]*sub, 0, len(c.seats))
	for _, st := range c.seats {
		st.state = seatNone
		if st.sub != nil {
			subs = append(subs, st.sub)
		} else {
			st.probe = false
			l.touch(st)
		}
	}
	l.mu.Unlock()
	if addr, moved := l.movedTo(err); moved {
		if addr == l.addr {
			return errMovedHere
		}
		for _, s := range subs {
			if s.movedLately() {
				l.postpone(s)
			} else {
				l.engine.place(s, addr)
			}
		}
		return nil
	}
	l.answered(err)
	if text := err.Error(); judge(text) == passing {
		pause := refusedPause / 2
		if isHasty(text) {
			pause = retryPause
		}
		for _, s := range subs {
			l.postponeFor(s, pause)
		}
		l.engine.topology.doubt(l) // others may know better
		return nil
	}
	if len(c.seats) > 1 {
		// One may be refused for all: ask for each by itself.
		l.mu.Lock()
		for _, st := range c.seats {
			st.alone = true
			l.touch(st)
		}
		l.mu.Unlock()
		return nil
	}
	for _, s := range subs {
		if _, _, confirms := s.state(); confirms > 0 { // it was allowed once
			l.refusedAgain(s, err)
			continue
		}
		s.refuse(l, l.engine.subscribeError(s.channel, l.addr, err))
	}
	return nil
}

// answered notes what the server has last said instead of confirming a
// subscription.
func (l *link) answered(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answer = clean(err)
}

// movedTo returns the address that a MOVED names.
func (l *link) movedTo(err error) (string, bool) {
	re, ok := rueidis.IsRedisErr(err)
	if !ok {
		return "", false
	}
	addr, ok := re.IsMoved()
	if !ok {
		return "", false
	}
	return resolve(addr, l.addr), true
}

// resolve returns the address that a node means: a node that does not know its
// own host leaves it empty.
func resolve(addr, from string) string {
	if host, port, err := net.SplitHostPort(addr); err == nil && host == "" {
		host, _, _ = net.SplitHostPort(from)
		return net.JoinHostPort(host, port)
	}
	return addr
}

// movedLately reports whether the sub has followed MOVED just now: nodes that
// disagree could send it back and forth.
func (s *sub) movedLately() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := ticks()
	lately := s.movedAt != 0 && time.Duration(now-s.movedAt) < retryPause
	if !lately {
		s.movedAt = now
	}
	return lately
}

// postpone has a sub's seat looked at after a pause.
func (l *link) postpone(s *sub) { l.postponeFor(s, retryPause) }

func (l *link) postponeFor(s *sub, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if st := l.seats[s.channel]; st != nil {
		l.later = append(l.later, postponed{st, time.Now().Add(d)})
	}
}

// A postponed seat is one to be looked at again when it is due.
type postponed struct {
	seat *seat
	due  time.Time
}

// refusedAgain postpones a subscription that was allowed once: rights have been
// taken away, and may be given back. It says so once for all.
func (l *link) refusedAgain(s *sub, err error) {
	l.mu.Lock()
	silent := time.Since(l.complained) < complainEvery
	if !silent {
		l.complained = time.Now()
	}
	l.mu.Unlock()
	if !silent {
		l.engine.journal.add(slog.LevelError, "subscribing again is refused (said once a minute, for all channels)",
			"channel", s.channel, "node", l.addr, "error", clean(err))
	}
	l.postponeFor(s, refusedPause)
}

// nextLater returns when the first of those that were postponed is due.
func (l *link) nextLater() (due time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.later {
		if due.IsZero() || p.due.Before(due) {
			due = p.due
		}
	}
	return due
}

func (l *link) touchLater() {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.later = slices.DeleteFunc(l.later, func(p postponed) bool {
		if p.due.After(now) {
			return false
		}
		l.touch(p.seat)
		return true
	})
}
