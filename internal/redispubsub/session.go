package redispubsub

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// A session is one connection of a link. The connection's reader calls its
// hooks. They do nothing once the session is over: the connection may receive
// for a while longer.
type session struct {
	link  *link
	conn  rueidis.DedicatedClient
	gone  <-chan error // gets the error, or is closed, when the connection is
	ended chan error   // capacity 1: why the session is to end
	id    identity     // of the server, before anything was subscribed
	resp3 bool         // commands reach the server on the connection that subscribes
	asks  atomic.Int32 // unanswered questions whether the server is a primary
	fed   *fed         // nil: the server is a primary
}

// connect makes a session with the link's node. With a primary it waits as long
// as the client needs to connect, or until the engine closes, and then for at
// most the ProbeTimeout; with a replica for at most the ProbeTimeout in all.
func (l *link) connect() (*session, error) {
	node, ok := l.engine.client.Nodes()[l.addr]
	if !ok {
		l.engine.topology.refreshClient(l.anyChannel())
		return nil, errNoNode
	}
	ses := &session{link: l, ended: make(chan error, 1)}
	ctx, cancel := l.exchange()
	defer cancel()
	var err error
	if l.primary != "" {
		ses.fed = newFed(ses)
		if ses.conn = l.engine.inspector.dedicate(ctx, l.addr, node); ses.conn == nil {
			return nil, errSilent
		}
	} else if ses.conn, err = l.dedicate(node); err != nil {
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
	if l.primary == "" { // dedicate may have taken long
		var again context.CancelFunc
		ctx, again = l.exchange()
		defer again()
	}
	if err := ses.introduce(ctx); err != nil {
		l.hangUp(ses)
		return nil, err
	}
	if !l.engine.connected.Swap(true) {
		l.engine.journal.Info("connected", "node", l.addr, "server", orElse(ses.id.version, "does not tell its version"), "mode", l.engine.mode.String())
	}
	l.mu.Lock()
	l.live, l.down = ses, nil
	l.seats.Connected()
	l.mu.Unlock()
	return ses, nil
}

// hangUp closes a connection. It does not wait: with a silent server the client
// takes a second. It does not call the release function, which would return the
// connection to the pool for others, and wait for the server to do so.
func (l *link) hangUp(ses *session) {
	l.engine.wg.Go(ses.conn.Close)
}

// serve sends what the table of seats asks for until the connection ends.
func (ses *session) serve() error {
	l := ses.link
	p := newProbe(ses)
	defer p.stop()
	for {
		if err := ses.reconcile(); err != nil {
			return err
		}
		var due <-chan time.Time
		if t := l.nextDue(); !t.IsZero() {
			due = time.After(time.Until(t))
		}
		select {
		case <-l.kick:
		case <-due:
			l.resume()
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

// end ends the session, once; serve returns why.
func (ses *session) end(why error) {
	select {
	case ses.ended <- why:
	default:
	}
}

// onMessage is called by the connection's reader. It waits only for locks that
// are held for a short time.
func (ses *session) onMessage(m rueidis.PubSubMessage) {
	l := ses.link
	l.mu.Lock()
	var s *sub
	if l.live == ses {
		s = l.seats.Subscriber(m.Channel)
	}
	l.mu.Unlock()
	l.heard.Add(1)
	if s != nil {
		s.deliver(l, bytesOf(m.Message))
	} else if ses.fed != nil {
		ses.fed.heard(m)
	}
}

// onSubscription is called by the connection's reader for replies and for the
// server's own notices.
func (ses *session) onSubscription(ev rueidis.PubSubSubscription) {
	ses.link.heard.Add(1)
	switch ev.Kind {
	case "subscribe", "ssubscribe":
		ses.confirmed(ev.Channel)
	case "unsubscribe", "sunsubscribe":
		if ses.fed != nil && ses.fed.ended(ev.Channel) {
			return
		}
		ses.unsubscribed(ev.Channel)
	}
}

func (ses *session) confirmed(channel string) {
	l := ses.link
	l.mu.Lock()
	var s *sub
	if l.live == ses {
		var asked bool
		if s, asked = l.seats.Confirmed(channel); asked {
			l.answer = nil
		}
	}
	l.mu.Unlock()
	switch {
	case s == nil:
	case ses.fed != nil:
		ses.fed.await(s)
	default:
		s.confirm(l, ses)
	}
}

func (ses *session) unsubscribed(channel string) {
	l := ses.link
	l.mu.Lock()
	var s *sub
	unsolicited := false
	if l.live == ses {
		s, unsolicited = l.seats.Ended(channel)
	}
	l.mu.Unlock()
	if s != nil {
		if ses.fed != nil {
			ses.fed.dismiss(s)
		}
		// A replica may have heard that a slot has moved before the last messages
		// that its primary accepted.
		s.lost(l, l.primary == "")
		l.engine.topology.verifyLater(l)
	}
	if unsolicited {
		l.wake()
	}
}

// check asks the server, after it has confirmed subscriptions, whether it is a
// primary. It does not wait. A replica accepts subscriptions too, but may not
// get what others publish, or in another order.
func (ses *session) check() {
	if ses.fed != nil {
		ses.fed.round()
		return
	}
	if ses.asks.Add(1) > 1 {
		return // another question follows the one that is under way
	}
	e := ses.link.engine
	e.wg.Go(func() { // wg is not zero, since the link's goroutine is running
		for {
			n := ses.asks.Load()
			ctx, cancel := ses.link.exchange()
			replica, err := ses.demoted(ctx)
			cancel()
			if err == nil && replica {
				ses.end(errReplica)
				e.topology.refreshTable()
				return
			}
			if ses.asks.CompareAndSwap(n, 0) {
				return
			}
		}
	})
}

// demoted reports whether the session's server is a replica. With RESP2 it
// cannot be asked on the session's connection, so another connection to its
// address is used.
func (ses *session) demoted(ctx context.Context) (bool, error) {
	if ses.resp3 {
		return isReplica(ctx, ses.conn)
	}
	node := ses.link.engine.client.Nodes()[ses.link.addr]
	if node == nil {
		return false, nil // the inspector handles that
	}
	primary, err := ses.link.engine.roles.primary(ctx, ses.link.addr, node)
	return !primary, err
}
