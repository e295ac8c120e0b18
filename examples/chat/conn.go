package main

import (
	"bufio"
	"net"
	"sync"
	"time"
)

// A conn is the connection of a page that has become a WebSocket. One goroutine
// reads from it; any goroutine may write whole frames.
//
// Many frames are written at once, since the write is most of the cost of a
// message: it takes 7.3 µs here for 530 bytes, and 0.8 µs a message when 32 are
// written together.
type conn struct {
	net.Conn
	in      *bufio.Reader
	timeout time.Duration // a page that does not read is dropped after this to twice this time

	mu  sync.Mutex // guards err; held while writing, so that frames don't mix
	err error      // why nothing can be written; nil: it can

	deadlines sync.Mutex // guards all below, and the setting of deadlines
	writeBy   time.Time  // the deadline of writes
	leaving   bool       // leave was called: deadlines are not changed
}

func newConn(c net.Conn, in *bufio.Reader, timeout time.Duration) *conn {
	return &conn{Conn: c, in: in, timeout: timeout}
}

// send writes frames. After a close frame it fails with net.ErrClosed.
func (c *conn) send(frames []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.postpone()
	if _, err := c.Conn.Write(frames); err != nil {
		c.err = err // part of a frame may have been written
		return err
	}
	if frames[0] == final|opClose {
		c.err = net.ErrClosed
	}
	return nil
}

// postpone moves the deadline of writes, but not with every write: that would
// be some percent of the cost of a write.
func (c *conn) postpone() {
	now := time.Now()
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	if !c.leaving && c.writeBy.Sub(now) < c.timeout {
		c.writeBy = now.Add(2 * c.timeout)
		c.SetWriteDeadline(c.writeBy) // if the connection is closed, the write fails too
	}
}

// expect sets the deadline of what is read next.
func (c *conn) expect(within time.Duration) {
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	if !c.leaving {
		c.SetReadDeadline(time.Now().Add(within))
	}
}

// leave sends a close frame. The current write, the close frame, and reading
// the page's close frame must be done within a time.
func (c *conn) leave(status int, reason string, within time.Duration) {
	c.deadlines.Lock()
	if !c.leaving {
		c.leaving = true
		c.SetDeadline(time.Now().Add(within))
	}
	c.deadlines.Unlock()
	_ = c.send(closeFrame(status, reason)) // fails if the page has gone, or has a close frame already
}

// closeFrame returns a close frame, without a status if that is statusNone. The
// reason must be short enough for a control frame.
func closeFrame(status int, reason string) []byte {
	if status == statusNone {
		return []byte{final | opClose, 0}
	}
	return append([]byte{final | opClose, byte(2 + len(reason)), byte(status >> 8), byte(status)}, reason...)
}

// controlFrame returns a control frame with a payload of up to 125 bytes.
func controlFrame(opcode byte, payload []byte) []byte {
	return append([]byte{final | opcode, byte(len(payload))}, payload...)
}
