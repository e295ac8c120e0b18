package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/olahol/melody"
)

// A melodyHall is a melody.Melody for each room, since melody has no rooms. Its
// sessions need WebSockets; these have a connection that accepts all writes
// without a system call. So a delivery includes the session's queue, the
// goroutine that empties it, and making a WebSocket frame for each session. All
// sessions share one request; a server would have one for each.
type melodyHall struct {
	rooms     []*melody.Melody
	connected chan struct{}
	ending    chan struct{} // closed to release connections that are stuck
	handlers  sync.WaitGroup
	rally     *rally
}

func openMelodyHall(o hallOptions) (hall, error) {
	h := &melodyHall{connected: make(chan struct{}), ending: make(chan struct{})}
	for range o.rooms {
		m := melody.New()
		m.HandleConnect(func(*melody.Session) { h.connected <- struct{}{} })
		m.HandleError(func(_ *melody.Session, err error) { h.failed(err) })
		h.rooms = append(h.rooms, m)
	}
	return h, nil
}

// failed is called when a queue is full, and when connections end.
func (h *melodyHall) failed(err error) {
	if errors.Is(err, melody.ErrMessageBufferFull) && h.rally != nil {
		h.rally.fail(err)
	}
}

func (h *melodyHall) join(room int, t *localTally) error {
	if t != nil && h.rally == nil {
		h.rally = t.rally
	}
	c := &melodyConn{tally: t, closed: make(chan struct{}), ending: h.ending}
	failed := make(chan error, 1)
	h.handlers.Go(func() { failed <- h.rooms[room].HandleRequest(melodyResponse{c}, melodyRequest) })
	select {
	case <-h.connected:
		return nil
	case err := <-failed:
		return fmt.Errorf("upgrade: %w", err)
	}
}

func (h *melodyHall) receive(int) {}

func (h *melodyHall) publish(room int, data []byte) error { return h.rooms[room].BroadcastBinary(data) }

func (h *melodyHall) close() error {
	close(h.ending)
	var errs []error
	for _, m := range h.rooms {
		errs = append(errs, m.Close())
	}
	h.handlers.Wait()
	return errors.Join(errs...)
}

// melodyRequest asks for a WebSocket.
var melodyRequest = &http.Request{Method: http.MethodGet, Header: http.Header{
	"Connection":            {"Upgrade"},
	"Upgrade":               {"websocket"},
	"Sec-Websocket-Version": {"13"},
	"Sec-Websocket-Key":     {"dGhlIHNhbXBsZSBub25jZQ=="},
}}

// A melodyResponse provides the connection.
type melodyResponse struct{ conn *melodyConn }

var _ http.Hijacker = melodyResponse{}

func (r melodyResponse) Header() http.Header         { return nil }
func (r melodyResponse) Write(b []byte) (int, error) { return len(b), nil }
func (r melodyResponse) WriteHeader(int)             {}
func (r melodyResponse) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return r.conn, bufio.NewReadWriter(bufio.NewReaderSize(r.conn, 16), bufio.NewWriterSize(r.conn, 16)), nil
}

// A melodyConn is the connection of a session. Nothing arrives on it. Without a
// tally it is stuck.
type melodyConn struct {
	tally  *localTally
	ending <-chan struct{}
	once   sync.Once
	closed chan struct{}
}

func (c *melodyConn) Write(b []byte) (int, error) {
	switch {
	case len(b) < len(localData): // the answer to the request, or the end
	case c.tally == nil:
		<-c.ending
	default:
		c.tally.got(1)
	}
	return len(b), nil
}

func (c *melodyConn) Read([]byte) (int, error) {
	<-c.closed
	return 0, io.EOF
}

func (c *melodyConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

func (c *melodyConn) LocalAddr() net.Addr              { return nil }
func (c *melodyConn) RemoteAddr() net.Addr             { return nil }
func (c *melodyConn) SetDeadline(time.Time) error      { return nil }
func (c *melodyConn) SetReadDeadline(time.Time) error  { return nil }
func (c *melodyConn) SetWriteDeadline(time.Time) error { return nil }
