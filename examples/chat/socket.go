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
// minBatch of them at first, and a larger one after that was once full.
const (
	minBatch = 16
	maxBatch = 256
)

// maxWrite bounds one write, in bytes. A single message may be longer.
const maxWrite = 256 << 10

// maxUnread bounds how many bytes are read from a client after an error.
const maxUnread = 4 << 20

// A socket is one page: a WebSocket on one side, a member of a room on the
// other. Three goroutines serve it: readPump publishes the page's messages,
// writePump writes the room's messages, and watch ends a socket that is stuck.
type socket struct {
	server *server
	conn   *conn
	member *fanout.Member
	room   *fanout.Room
	name   string
	log    *slog.Logger
}

// serveSocket serves GET /ws?room=R&name=N, with &since=POSITION from a page
// that wants earlier messages.
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
	member, err := s.hub.Connect(&fanout.MemberOptions{User: v.name})
	if err != nil {
		shuttingDown.write(w)
		return
	}
	defer member.Close()
	log := s.log.With("room", v.room, "name", v.name, "member", member.ID())

	// The member joins before the socket opens, but after all checks. So every
	// message that is published after a page has seen its socket open reaches
	// it, a room that cannot be joined is an HTTP error with a reason, and a
	// request that cannot become a WebSocket costs the backend nothing.
	if err := s.join(r.Context(), room, member, v.since); err != nil {
		if errors.Is(err, fanout.ErrInvalidRoom) || errors.Is(err, fanout.ErrInvalidPosition) {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		log.Warn("not joined", "error", err)
		http.Error(w, "the room cannot be reached at the moment", http.StatusServiceUnavailable)
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

// isWrong reports whether a position does not belong to the room. A page whose
// socket did not open sends a plain request to learn why, since the browser
// does not tell it.
func (s *server) isWrong(ctx context.Context, room *fanout.Room, since *fanout.Position) bool {
	if since == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, s.timing.health)
	defer cancel()
	_, err := room.History(ctx, *since, 1)
	return errors.Is(err, fanout.ErrInvalidPosition)
}

// join joins the room, for as long as the client waits and the server runs. A
// page that was in the room before first gets the messages since then, if the
// room keeps them.
func (s *server) join(ctx context.Context, room *fanout.Room, member *fanout.Member, since *fanout.Position) error {
	ctx, cancel := context.WithTimeout(ctx, s.timing.join)
	defer cancel()
	defer context.AfterFunc(s.draining, cancel)()
	if since != nil {
		err := room.Resume(ctx, member, *since)
		if !errors.Is(err, fanout.ErrNoHistory) {
			return err
		}
		// A page does not know whether the server keeps a history: it asks for
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

// reader returns a reader of the page's messages.
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
				time.Sleep(d) // as long as the page has exceeded its allowance: a fraction of a second
			}
		},
	}
}

// readPump publishes each message to the room, in order: it reads the next one
// after the backend has accepted this one. So a page that sends too much waits,
// and delays no other page.
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

// publish publishes a text to the room. An error ends the socket.
func (c *socket) publish(text []byte) error {
	// The message is published even if its page leaves at this moment; the hub
	// has a deadline of its own for that.
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

// ended sends the close frame for the error that has ended reading, and returns
// why the socket ends.
func (c *socket) ended(r *reader, err error) error {
	var bad *violation
	var bye *closed
	switch {
	case errors.As(err, &bad):
		c.conn.leave(bad.status, bad.reason, c.server.timing.goodbye)
		c.member.Close() // so that the member leaves without waiting for the page's close frame
		r.discard(maxUnread)
		return fmt.Errorf("refused: %w", err)
	case errors.As(err, &bye):
		c.conn.leave(bye.status, "", c.server.timing.goodbye)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("no message and no answer to a ping for %v", c.server.timing.silence())
	}
	return err
}

// publishFailed returns a text for a page whose message was not published,
// without the addresses and internals that are in the error.
func publishFailed(err error) string {
	if errors.Is(err, fanout.ErrUnsent) {
		return "your message was not sent: the room cannot be reached at the moment"
	}
	return "your message may not have arrived: the room cannot be reached at the moment"
}

// tell writes a frame that is not a message of the room.
func (c *socket) tell(v any) error { return c.conn.send(textFrame(encode(v))) }

// writePump writes the room's messages until it cannot, and closes the socket
// with the reason. It closes written when it has stopped writing.
func (c *socket) writePump(ctx context.Context, written chan<- struct{}) {
	err := c.copyBatches(ctx)
	close(written)
	switch {
	case errors.Is(err, fanout.ErrClosed):
		status, reason := statusGoingAway, "the server has ended the connection"
		if bye := (*fanout.ClosedError)(nil); errors.As(err, &bye) {
			if bye.Draining {
				reason = "the server is shutting down"
			} else { // serveKick, here or on another process
				status, reason = statusKicked, bye.Reason
			}
		}
		c.conn.leave(status, reason, c.server.timing.goodbye)
	case ctx.Err() != nil, errors.Is(err, net.ErrClosed): // watch or readPump close
	case errors.Is(err, fanout.ErrSlow):
		c.conn.leave(statusPolicy, "the connection is too slow for the room", c.server.timing.goodbye)
	default:
		c.drop(err)
	}
}

// drop ends a socket that cannot be written to.
func (c *socket) drop(err error) {
	c.log.Info("dropped: it does not read", "error", err)
	c.conn.Close()
}

// copyBatches receives all messages that are ready and writes them in one
// write.
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
		clear(batch[:n]) // the buffer of an idle page must not keep messages alive
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
			prev = nil // prev leads to all later frames, and the write may take long
			if err := c.conn.send(b.frames); err != nil {
				return err
			}
			b.reset()
		}
		b.add(frame)
	}
	return c.conn.send(b.frames)
}

// leaveIfDraining says goodbye if the server drains. A page gets one goodbye,
// the first.
func (c *socket) leaveIfDraining() {
	if c.server.draining.Err() != nil {
		c.conn.leave(statusGoingAway, "the server is shutting down", c.server.timing.goodbye)
	}
}

// watch ends a socket whose server drains, or whose member has ended while a
// write to it is stuck. It also pings the page, and readPump ends the socket of
// a page that does not answer. (Nothing else shows that the other end has
// disappeared, as a phone without a signal does.)
func (c *socket) watch(ctx context.Context, wg *sync.WaitGroup, written <-chan struct{}) {
	tick := time.NewTicker(c.server.timing.ping)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			c.leaveIfDraining()
			return
		case <-c.member.Done():
			select {
			case <-written: // writePump says goodbye, unless it has ended with ctx
				c.leaveIfDraining()
			case <-time.After(c.server.timing.grace):
				c.conn.Close()
			}
			return
		case <-tick.C:
			wg.Go(c.ping) // on a goroutine, so that the other cases need not wait for the write
		}
	}
}

// ping sends a ping.
func (c *socket) ping() {
	if err := c.conn.send(controlFrame(opPing, nil)); err != nil && !errors.Is(err, net.ErrClosed) {
		c.drop(err)
	}
}
