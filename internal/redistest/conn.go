package redistest

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// sendBuffer is how many bytes a connection that is cut accepts before writes
// block, as the system's buffer would.
const sendBuffer = 64 << 10

// flushTime bounds how long healing waits for a server to accept what was
// written meanwhile.
const flushTime = 5 * time.Second

// A conn is a connection that a Net can break.
type conn struct {
	net.Conn // the real connection
	net      *Net
	addr     string

	// writing is held while bytes are written to Conn, so that bytes that wait
	// for healing are sent before newer ones. It is taken before mu.
	writing sync.Mutex

	mu       sync.Mutex // guards what follows
	cut      bool
	reset    bool
	closed   bool
	changed  chan struct{} // closed and set to nil when the state changes
	received []byte        // read from Conn while cut, withheld until healed
	failure  error         // likewise
	sent     []byte        // written while cut
	deadline [2]time.Time  // of reads and writes
}

type direction int

const (
	reads direction = iota
	writes
)

// suffer applies the trouble of a Net.
func (c *conn) suffer(t trouble) {
	switch t {
	case none:
		c.heal()
	case silent:
		c.update(func() { c.cut = true })
	case refused:
		c.update(func() { c.cut, c.reset = false, true })
		c.abort()
	}
}

// update changes the state and wakes the goroutines that wait for that.
func (c *conn) update(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

func (c *conn) isCut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut
}

// heal sends what was written while the connection was cut, and its close.
func (c *conn) heal() {
	if !c.isCut() {
		return // without waiting for a write that takes long
	}
	c.writing.Lock()
	c.mu.Lock()
	sent, closed := c.sent, c.closed
	c.sent = nil
	c.mu.Unlock()
	if len(sent) > 0 {
		c.Conn.SetWriteDeadline(time.Now().Add(flushTime))
		c.Conn.Write(sent) // if this fails, the next use fails too
	}
	c.update(func() {
		c.cut = false
		c.Conn.SetWriteDeadline(c.deadline[writes])
	})
	c.writing.Unlock()
	if closed {
		c.end()
	}
}

// abort closes with a reset.
func (c *conn) abort() {
	c.net.remove(c)
	switch inner := c.Conn.(type) {
	case *conn:
		inner.abort()
	case *net.TCPConn:
		inner.SetLinger(0)
	}
	c.Conn.Close()
}

// end closes for good.
func (c *conn) end() error {
	c.net.remove(c)
	return c.Conn.Close()
}

// Close closes the connection. The server does not notice while it is cut.
func (c *conn) Close() error {
	var cut, twice bool
	c.update(func() { cut, twice, c.closed = c.cut, c.closed, true })
	if twice {
		return net.ErrClosed
	}
	if cut {
		// A Read that waits must return in any case.
		return c.Conn.SetReadDeadline(time.Unix(1, 0))
	}
	return c.end()
}

// wait returns when the connection is not cut, or can no longer be used.
func (c *conn) wait(d direction) error {
	for {
		c.mu.Lock()
		if c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed, deadline := c.changed, c.deadline[d]
		err, cut := c.errorLocked(d), c.cut
		c.mu.Unlock()
		if err != nil || !cut {
			return err
		}
		if err := waitUntil(changed, deadline); err != nil {
			return err
		}
	}
}

func (c *conn) errorLocked(d direction) error {
	t := c.deadline[d]
	switch {
	case c.reset:
		return syscall.ECONNRESET
	case c.closed:
		return net.ErrClosed
	case !t.IsZero() && !time.Now().Before(t):
		return os.ErrDeadlineExceeded
	}
	return nil
}

func waitUntil(changed <-chan struct{}, deadline time.Time) error {
	if deadline.IsZero() {
		<-changed
		return nil
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-changed:
		return nil
	case <-timer.C:
		return os.ErrDeadlineExceeded
	}
}

func (c *conn) Read(p []byte) (int, error) {
	for {
		if err := c.wait(reads); err != nil {
			return 0, c.opError("read", err)
		}
		if n, ok, err := c.takeReceived(p); ok {
			return n, err
		}
		n, err := c.Conn.Read(p)
		if !c.keepReceived(p[:n], err) {
			return n, c.explain("read", err)
		}
	}
}

// takeReceived returns what was read while the connection was cut.
func (c *conn) takeReceived(p []byte) (n int, ok bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.received) > 0 {
		n = copy(p, c.received)
		c.received = c.received[n:]
		return n, true, nil
	}
	if c.failure != nil {
		return 0, true, c.failure
	}
	return 0, false, nil
}

// keepReceived keeps what arrived, if the connection has been cut meanwhile.
func (c *conn) keepReceived(p []byte, err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.cut {
		return false
	}
	c.received = append(c.received, p...)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.failure = err
	}
	return true
}

func (c *conn) Write(p []byte) (int, error) {
	for {
		if n, ok, err := c.write(p); ok {
			return n, c.explain("write", err)
		}
		if err := c.wait(writes); err != nil {
			return 0, c.opError("write", err)
		}
	}
}

// write writes to Conn or, while cut, to a buffer. ok is false if there is no
// room.
func (c *conn) write(p []byte) (n int, ok bool, err error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	if err := c.errorLocked(writes); err != nil {
		c.mu.Unlock()
		return 0, true, err
	}
	cut, room := c.cut, sendBuffer-len(c.sent)
	if cut && room > 0 { // bytes beyond the room are accepted too, which makes no difference
		c.sent = append(c.sent, p...)
	}
	c.mu.Unlock()
	if cut {
		return len(p), room > 0, nil
	}
	n, err = c.Conn.Write(p)
	return n, true, err
}

// explain makes the error of a closed connection that of a reset, if it was
// reset.
func (c *conn) explain(op string, err error) error {
	if err == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reset {
		return c.opError(op, syscall.ECONNRESET)
	}
	return err
}

func (c *conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.update(func() { c.deadline[reads] = t })
	return c.Conn.SetReadDeadline(t)
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.update(func() { c.deadline[writes] = t })
	return c.Conn.SetWriteDeadline(t)
}
