package main

import (
	"bufio"
	"net"
	"sync"
	"time"
)

// A conn is a page's connection, once it is a WebSocket. One goroutine reads from it;
// any may write, whole frames each.
//
// What the page is to see goes out as it is, many frames in a write: the write is what
// a message costs, 7.3 µs here for 530 bytes, against 0.8 µs when 32 of them go
// together.
type conn struct {
	net.Conn
	in      *bufio.Reader
	timeout time.Duration // a page that does not read for that long is dropped, after twice that at the latest

	mu  sync.Mutex // guards err; held while writing, so that frames don't mix
	err error      // nothing is written any more

	deadlines sync.Mutex // guards all below, and the setting of deadlines
	writeBy   time.Time  // the deadline of writes
	leaving   bool       // the close frame is on its way: deadlines stay as they are
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
		c.err = err // part of a frame may be on its way
		return err
	}
	if frames[0] == final|opClose {
		c.err = net.ErrClosed
	}
	return nil
}

// postpone moves the deadline of writes, but not with every write: that would be
// some percent of its cost.
func (c *conn) postpone() {
	now := time.Now()
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	if !c.leaving && c.writeBy.Sub(now) < c.timeout {
		c.writeBy = now.Add(2 * c.timeout)
		c.SetWriteDeadline(c.writeBy) // it fails if the connection is closed, as the write will
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

// leave says goodbye with a close frame. All that is left to do, to write what is being
// written, the close frame, and to read that of the page, must be done within a time.
func (c *conn) leave(status int, reason string, within time.Duration) {
	c.deadlines.Lock()
	if !c.leaving {
		c.leaving = true
		c.SetDeadline(time.Now().Add(within))
	}
	c.deadlines.Unlock()
	_ = c.send(closeFrame(status, reason)) // the page may have gone, or have been told already
}

// closeFrame returns a close frame; one without a status if that is statusNone. The
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
