package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/fanoutgo/fanout"
)

// Up to maxBatch messages go to a page in one write. A page has a buffer for
// minBatch of them at first, and a larger one when that was once full.
const (
	minBatch = 16
	maxBatch = 256
)

// maxWrite bounds one write, in bytes. A single message may be longer.
const maxWrite = 256 << 10

// maxUnread is how much more is read of a client that was refused, in bytes.
const maxUnread = 4 << 20

// A socket is one page: a WebSocket on one side, a member of a room on the
// other. Three goroutines serve it: readPump publishes what the page says,
// writePump writes what the room says, and watch ends what is stuck.
type socket struct {
	server *server
	conn   *conn
	member *fanout.Member
	room   *fanout.Room
	name   string
	log    *slog.Logger
}

// serveSocket is GET /ws?room=R&name=N, with &since=POSITION from a page that
// wants what was said before it came.
func (s *server) serveSocket(w http.ResponseWriter, r *http.Request) {
	v, err := visitOf(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	room := s.hub.Room(v.room)
	if no := judgeUpgrade(r); no != nil {
		if no.status == http.StatusUpgradeRequired && s.isWrong(r.Context(), room, v.since) {
			no = &refusal{http.StatusBadRequest, "since is no position of the room"}
		}
		no.write(w)
		return
	}
	if no := s.begin(); no != nil {
		no.write(w)
		return
	}
	defer s.end()
	member, err := s.hub.Connect(nil)
	if err != nil {
		shuttingDown.write(w)
		return
	}
	defer member.Close()
	log := s.log.With("room", v.room, "name", v.name, "member", member.ID())

	// The member joins before the socket opens, but when nothing is in its way any
	// more: whatever is said after a page has seen its socket open reaches it, a
	// room that cannot be joined is an HTTP error with a reason, and a request that
	// is none for a WebSocket costs the backend nothing.
	if err := s.join(r.Context(), room, member, v.since); err != nil {
		if errors.Is(err, fanout.ErrInvalidRoom) || errors.Is(err, fanout.ErrInvalidPosition) {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		log.Warn("not joined", "error", err)
		http.Error(w, "the room cannot be reached just now", http.StatusServiceUnavailable)
		return
	}
	conn, err := accept(w, r, s.timing.write)
	if err != nil {
		log.Info("not accepted", "error", err)
		return // accept has answered
	}
	c := &socket{server: s, conn: conn, member: member, room: room, name: v.name, log: log}
	log.Info("joined", "remote", r.RemoteAddr)
	why := c.run()
	log.Info("left", "why", why)
}

// isWrong reports whether a position is none of the room's. A page whose socket did not
// open asks with a plain request, since a browser does not tell it why.
func (s *server) isWrong(ctx context.Context, room *fanout.Room, since *fanout.Position) bool {
	if since == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, s.timing.health)
	defer cancel()
	_, err := room.History(ctx, *since, 1)
	return errors.Is(err, fanout.ErrInvalidPosition)
}

// join joins the room, for as long as the client waits and the server runs. A page that
// has been there before gets first what was said since, if the room keeps that.
func (s *server) join(ctx context.Context, room *fanout.Room, member *fanout.Member, since *fanout.Position) error {
	ctx, cancel := context.WithTimeout(ctx, s.timing.join)
	defer cancel()
	defer context.AfterFunc(s.draining, cancel)()
	if since != nil {
		err := room.Resume(ctx, member, *since)
		if !errors.Is(err, fanout.ErrNoHistory) {
			return err
		}
		// A page needn't know whether the server keeps a history: it asks for
		// one in any case.
	}
	return room.Join(ctx, member)
}

// run serves the socket to its end and returns why it ended.
func (c *socket) run() error {
	ctx, cancel := context.WithCancel(c.server.draining)
	written := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { c.writePump(ctx, written) })
	wg.Go(func() { c.watch(ctx, &wg, written) })
	why := c.readPump()
	cancel()
	c.conn.Close() // ends a write that is stuck
	c.member.Close()
	wg.Wait()
	return why
}

// reader returns the reader of what the page says.
func (c *socket) reader() *reader {
	frames, bytes := meter{allowance: c.server.limits.frames}, meter{allowance: c.server.limits.bytes}
	return &reader{
		in:   c.conn.in,
		max:  maxText,
		pong: func(payload []byte) error { return c.conn.send(controlFrame(opPong, payload)) },
		wait: func() { c.conn.expect(c.server.timing.silence()) },
		charge: func(n int) {
			now := time.Now()
			if d := max(frames.use(1, now), bytes.use(float64(n), now)); d > 0 {
				time.Sleep(d) // what a frame is too much: a fraction of a second
			}
		},
	}
}

// readPump publishes each message to the room, in order: the next one is not read
// before the backend has taken this one. So a page that floods waits, and no other does.
func (c *socket) readPump() error {
	r := c.reader()
	for {
		text, err := r.message()
		if err != nil {
			return c.ended(r, err)
		}
		if wrong := wrongWith(text); wrong != "" {
			err = c.tell(failure{Error: "your message was not sent: " + wrong})
		} else {
			err = c.publish(text)
		}
		if err != nil {
			return c.ended(r, err)
		}
	}
}

// publish says something to the room. Its error ends the socket.
func (c *socket) publish(text []byte) error {
	// What was said is published even if its page goes at this moment; the hub has
	// a deadline of its own for it.
	err := c.room.Publish(context.Background(), newSaid(c.name, c.room.Name(), text))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fanout.ErrClosed):
		return &violation{statusGoingAway, "the server is shutting down"}
	}
	c.log.Warn("not published", "error", err)
	return c.tell(failure{Error: publishFailed(err)})
}

// ended says goodbye to a page from which nothing more is read, as it should, and returns why.
func (c *socket) ended(r *reader, err error) error {
	var bad *violation
	var bye *closed
	switch {
	case errors.As(err, &bad):
		c.conn.leave(bad.status, bad.reason, c.server.timing.goodbye)
		c.member.Close() // the room need not wait for the page's answer
		r.discard(maxUnread)
		return fmt.Errorf("refused: %w", err)
	case errors.As(err, &bye):
		c.conn.leave(bye.status, "", c.server.timing.goodbye)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("nothing whole came for %v, not even the answer to a ping", c.server.timing.silence())
	}
	return err
}

// publishFailed says to a page what became of its message, without the
// addresses and internals that are in the error.
func publishFailed(err error) string {
	if errors.Is(err, fanout.ErrUnsent) {
		return "your message was not sent: the room cannot be reached just now"
	}
	return "your message may not have arrived: the room cannot be reached just now"
}

// tell writes a frame that is not a message of the room.
func (c *socket) tell(v any) error { return c.conn.send(textFrame(encode(v))) }

// writePump writes what the room says until it can't, and closes the socket
// accordingly. It closes written when it will not write any more.
func (c *socket) writePump(ctx context.Context, written chan<- struct{}) {
	err := c.copyBatches(ctx)
	close(written)
	switch {
	case ctx.Err() != nil, errors.Is(err, net.ErrClosed): // watch or readPump close
	case errors.Is(err, fanout.ErrClosed):
		c.conn.leave(statusGoingAway, "the server has ended the connection", c.server.timing.goodbye)
	case errors.Is(err, fanout.ErrSlow):
		c.conn.leave(statusPolicy, "the connection is too slow for the room", c.server.timing.goodbye)
	default:
		c.drop(err)
	}
}

// drop ends a socket that cannot be written to.
func (c *socket) drop(err error) {
	c.log.Info("dropped, it does not take what is written to it", "error", err)
	c.conn.Close()
}

// copyBatches takes what is ready and writes all of it in one write.
func (c *socket) copyBatches(ctx context.Context) error {
	batch := make([]fanout.Message, minBatch)
	for {
		n, err := c.member.ReceiveBatch(ctx, batch)
		if gap := (*fanout.GapError)(nil); errors.As(err, &gap) {
			if gap.Room == "" {
				continue // among messages to this member or to everyone, which this chat never sends
			}
			if err := c.tell(missing{Gap: gap.Missed, Unknown: gap.Unknown}); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if err := c.write(batch[:n]); err != nil {
			return err
		}
		clear(batch[:n]) // a page that hears nothing more must not hold these
		switch {
		case n < len(batch):
			c.gather(ctx)
		case n < maxBatch:
			batch = make([]fanout.Message, 2*n)
		}
	}
}

// write writes messages, all in one write if they fit into maxWrite.
func (c *socket) write(messages []fanout.Message) error {
	b := batches.Get().(*batch)
	defer batches.Put(b)
	defer b.reset()
	var prev *frame
	for i := range messages {
		prev = c.server.frames.of(&messages[i], prev)
		frame := prev.bytes
		if len(b.frames) > 0 && len(b.frames)+len(frame) > maxWrite {
			prev = nil // the write may take long, and it leads to all that comes meanwhile
			if err := c.conn.send(b.frames); err != nil {
				return err
			}
			b.reset()
		}
		b.add(frame)
	}
	return c.conn.send(b.frames)
}

// watch ends a socket whose server drains, or whose member has ended while a write to it
// is stuck. It pings the page, so that one that is there can show it: readPump ends the
// socket of one that does not. (A connection whose other end went without a word, such as
// a phone out of reach, shows it in no other way.)
func (c *socket) watch(ctx context.Context, wg *sync.WaitGroup, written <-chan struct{}) {
	tick := time.NewTicker(c.server.timing.ping)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			if c.server.draining.Err() != nil {
				c.conn.leave(statusGoingAway, "the server is shutting down", c.server.timing.goodbye)
			}
			return
		case <-c.member.Done():
			select {
			case <-written: // writePump says goodbye
			case <-time.After(c.server.timing.grace):
				c.conn.Close()
			}
			return
		case <-tick.C:
			wg.Go(c.ping) // so that the other cases needn't wait for the write
		}
	}
}

// ping asks for a sign of life.
func (c *socket) ping() {
	if err := c.conn.send(controlFrame(opPing, nil)); err != nil && !errors.Is(err, net.ErrClosed) {
		c.drop(err)
	}
}
