package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

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

// A socket is one page: a WebSocket on one side, a member of a room on the
// other. Three goroutines serve it: readPump publishes what the page says,
// writePump writes what the room says, and watch ends what is stuck or dead.
type socket struct {
	server *server
	ws     *websocket.Conn
	conn   *conn // what ws writes to, and we
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
	if !s.begin() {
		http.Error(w, "the server is shutting down", http.StatusServiceUnavailable)
		return
	}
	defer s.sockets.Done()
	member, err := s.hub.Connect(nil)
	if err != nil {
		http.Error(w, "the server is shutting down", http.StatusServiceUnavailable)
		return
	}
	defer member.Close()
	log := s.log.With("room", v.room, "name", v.name, "member", member.ID())

	// The member joins before the socket opens: whatever is said after a page
	// has seen its socket open reaches it, and a room that cannot be joined is
	// an HTTP error with a reason.
	room := s.hub.Room(v.room)
	if err := s.join(r.Context(), room, member, v.since); err != nil {
		if errors.Is(err, fanout.ErrInvalidRoom) || errors.Is(err, fanout.ErrInvalidPosition) {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		log.Warn("not joined", "error", err)
		http.Error(w, "the room cannot be reached just now", http.StatusServiceUnavailable)
		return
	}

	// Accept refuses pages of other sites (by their Origin), which could speak
	// in their visitors' names otherwise. To let one in, name its host in
	// websocket.AcceptOptions.OriginPatterns.
	hw := &hijacker{ResponseWriter: w, timeout: s.timing.write}
	ws, err := websocket.Accept(hw, r, nil)
	if err != nil {
		log.Info("not accepted", "error", err)
		return // Accept has answered
	}
	ws.SetReadLimit(-1) // readPump has a limit of its own, with a reason
	c := &socket{server: s, ws: ws, conn: hw.conn, member: member, room: room, name: v.name, log: log}
	log.Info("joined", "remote", r.RemoteAddr)
	why := c.run()
	log.Info("left", "why", why)
}

// join joins the room, for as long as the client waits and the server runs. Who
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
	c.ws.CloseNow() // ends a write that is stuck; does nothing where somebody has closed
	c.member.Close()
	wg.Wait()
	return why
}

// readPump publishes each frame as a message to the room, in order: the next
// one is not read before the backend has taken this one. So whoever floods
// waits, and nobody else does.
func (c *socket) readPump() error {
	for {
		// No ctx: it would end the connection without a goodbye. Closing ends
		// the read.
		typ, r, err := c.ws.Reader(context.Background())
		if err != nil {
			return err
		}
		if typ != websocket.MessageText {
			return c.refuse(websocket.StatusUnsupportedData, "only text frames are messages here")
		}
		text, err := io.ReadAll(io.LimitReader(r, maxText+1))
		switch {
		case err != nil:
			return err
		case len(text) > maxText:
			return c.refuse(websocket.StatusMessageTooBig, fmt.Sprintf("a message may have %d bytes at most", maxText))
		case !utf8.Valid(text):
			return c.refuse(websocket.StatusInvalidFramePayloadData, "a message must be valid UTF-8")
		}
		// What was said is published even if its page goes at this moment; the
		// hub has a deadline of its own for it.
		if err := c.room.Publish(context.Background(), newSaid(c.name, c.room.Name(), text)); err != nil {
			if errors.Is(err, fanout.ErrClosed) {
				return c.refuse(websocket.StatusGoingAway, "the server is shutting down")
			}
			c.log.Warn("not published", "error", err)
			c.tell(failure{Error: publishFailed(err)})
		}
	}
}

// publishFailed says to a page what became of its message, without the
// addresses and internals that are in the error.
func publishFailed(err error) string {
	if errors.Is(err, fanout.ErrUnsent) {
		return "your message was not sent: the room cannot be reached just now"
	}
	return "your message may not have arrived: the room cannot be reached just now"
}

// refuse ends the socket instead of publishing what the page sent.
func (c *socket) refuse(status websocket.StatusCode, reason string) error {
	c.ws.Close(status, reason)
	return fmt.Errorf("refused: %s", reason)
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
		c.ws.Close(websocket.StatusGoingAway, "the server has ended the connection")
	case errors.Is(err, fanout.ErrSlow):
		c.ws.Close(websocket.StatusPolicyViolation, "the connection is too slow for the room")
	default:
		c.log.Info("dropped, it does not take what is written to it", "error", err)
		c.ws.CloseNow()
	}
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

// watch ends a socket whose server drains, whose member has ended while a write
// to it is stuck, or whose page does not answer pings.
func (c *socket) watch(ctx context.Context, wg *sync.WaitGroup, written <-chan struct{}) {
	tick := time.NewTicker(c.server.timing.ping)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			if c.server.draining.Err() != nil {
				c.ws.Close(websocket.StatusGoingAway, "the server is shutting down")
			}
			return
		case <-c.member.Done():
			select {
			case <-written: // writePump says goodbye
			case <-time.After(c.server.timing.grace):
				c.ws.CloseNow()
			}
			return
		case <-tick.C:
			wg.Go(func() { c.ping(ctx) }) // so that the other cases needn't wait for the pong
		}
	}
}

// ping drops a page that does not answer. A connection whose other end went
// without a word (a phone out of reach) shows it in no other way.
func (c *socket) ping(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, c.server.timing.pong)
	defer cancel()
	if err := c.ws.Ping(ctx); errors.Is(err, context.DeadlineExceeded) {
		c.log.Info("dropped, it does not answer pings", "error", err)
		c.ws.CloseNow()
	}
}
