package redispubsub

import (
	"net"
	"time"

	"github.com/redis/rueidis"

	"github.com/fanoutgo/fanout/internal/clock"
	"github.com/fanoutgo/fanout/internal/redispubsub/seats"
	"github.com/fanoutgo/fanout/internal/wire"
)

const (
	// retryPause is the wait before a command is repeated that the server
	// cannot accept at the moment.
	retryPause = 50 * time.Millisecond
	// refusedPause is the wait before a refused command is repeated.
	refusedPause = time.Second
	// complainEvery is how often refused commands are logged.
	complainEvery = time.Minute
)

// reconcile sends commands until the table of seats has no more. It returns an
// error when the connection must not be used any longer.
func (ses *session) reconcile() error {
	l := ses.link
	for {
		l.mu.Lock()
		commands := l.seats.Next()
		l.mu.Unlock()
		if len(commands) == 0 {
			return nil
		}
		results := ses.send(commands)
		subscribed, kept := false, false
		for i, c := range commands {
			if err := results[i].NonRedisError(); err != nil {
				return err
			}
			err := results[i].Error()
			if c.Leave {
				l.left(c)
				kept = kept || err != nil
				continue
			}
			subscribed = true
			if err := l.replied(c, err); err != nil {
				return err
			}
		}
		if kept && l.unused() {
			return errIdle // a replica answers MOVED and keeps the subscription: only this ends it
		}
		if subscribed {
			ses.check()
		}
	}
}

// send sends a batch and waits for the replies.
func (ses *session) send(commands []*seats.Command[*sub]) []rueidis.RedisResult {
	mode := ses.link.engine.mode
	built := make(rueidis.Commands, len(commands))
	for i, c := range commands {
		if c.Leave {
			built[i] = mode.unsubscribe(ses.conn.B(), c.Channels)
		} else {
			built[i] = mode.subscribe(ses.conn.B(), c.Channels)
		}
	}
	ctx, cancel := ses.link.exchange()
	defer cancel()
	return ses.conn.DoMulti(ctx, built...)
}

func (l *link) left(c *seats.Command[*sub]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seats.Left(c)
}

// replied acts on the reply to a command that subscribes. It returns an error
// if the connection leads to the wrong server.
func (l *link) replied(c *seats.Command[*sub], err error) error {
	if err == nil {
		return nil
	}
	addr, moved := movedTo(err, l.addr)
	kind := kindOf(err.Error())
	reply := seats.Refused
	switch {
	case moved:
		reply = seats.Moved
	case !kind.final():
		reply = seats.NotNow
	}
	if isCrossSlot(err) {
		l.split()
	}
	l.mu.Lock()
	failed := l.seats.Replied(c, reply)
	if !moved {
		l.answer = clean(err)
	}
	l.mu.Unlock()
	switch reply {
	case seats.Moved:
		return l.moved(failed, addr)
	case seats.NotNow:
		pause := refusedPause / 2
		if kind.changesSoon() {
			pause = retryPause
		}
		for _, s := range failed {
			l.postpone(s, pause)
		}
		l.engine.topology.verifyLater(l) // other nodes may know more
	case seats.Refused:
		for _, s := range failed {
			l.refused(s, err)
		}
	}
	return nil
}

// split is called when a server that is no cluster for the client refuses
// channels of several slots in one command: it is a proxy before many shards.
// From now on each command names channels of one slot.
func (l *link) split() {
	e := l.engine
	if !e.mode.mayHideShards() {
		return
	}
	first := !e.split.Swap(true)
	l.mu.Lock()
	l.seats.Split(wire.Slot)
	l.mu.Unlock()
	if first {
		e.journal.Warn("the server is one endpoint before many shards: rooms are subscribed slot by slot; an endpoint that shows its shards (the OSS Cluster API) is better",
			"node", l.addr)
	}
}

// moved gives subs a place at the address that the node has named.
func (l *link) moved(subs []*sub, addr string) error {
	switch {
	case addr == l.addr:
		return errMovedHere
	case addr == l.primary:
		return errOtherPrimary
	case l.primary != "": // a replica may have old news
		l.engine.topology.refreshTable()
	}
	for _, s := range subs {
		switch {
		case s.movedLately():
			l.postpone(s, retryPause)
		case l.primary != "":
			l.engine.put(s, addr)
		default:
			l.engine.place(s, addr)
		}
	}
	return nil
}

// refused fails a subscription that was never confirmed. One that was confirmed
// once is tried again: rights have been taken away, and may be granted again.
func (l *link) refused(s *sub, err error) {
	if _, _, confirms := s.state(); confirms == 0 {
		s.refuse(l, l.engine.subscribeError(s.channel, l.addr, err))
		return
	}
	l.mu.Lock()
	silent := time.Since(l.complained) < complainEvery
	if !silent {
		l.complained = time.Now()
	}
	l.mu.Unlock()
	if !silent {
		l.engine.journal.Error("subscribing again is refused (said once a minute, for all channels)",
			"channel", s.channel, "node", l.addr, "error", clean(err))
	}
	l.postpone(s, refusedPause)
}

// movedTo returns the address that a MOVED from a node names.
func movedTo(err error, from string) (addr string, moved bool) {
	if re, ok := rueidis.IsRedisErr(err); ok {
		if addr, moved = re.IsMoved(); moved {
			return resolve(addr, from), true
		}
	}
	return "", false
}

// resolve returns the address that a node means: a node that does not know its
// own host leaves the host empty.
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
	lately := s.movedAt != 0 && clock.Since(s.movedAt) < retryPause
	if !lately {
		s.movedAt = clock.Now()
	}
	return lately
}
