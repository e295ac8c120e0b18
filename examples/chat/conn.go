package main

import (
	"bufio"
	"net"
	"net/http"
	"sync"
	"time"
)

// maxGathered bounds what a gatherer holds back, in bytes.
const maxGathered = 256 << 10

// A gatherer is a net.Conn that can hold back what is written until it is told
// to send it, so that all messages that are ready for a page go in one write.
// The WebSocket library writes each message by itself, and the write is what a
// message costs: 7.3 µs here for 530 bytes, against 0.8 µs when 32 of them are
// gathered.
//
// Between flush and gather it writes through: a ping or a close frame never
// waits for a batch.
type gatherer struct {
	net.Conn
	timeout time.Duration // of a write: who does not read that long is dropped

	mu        sync.Mutex // guards all below; held while writing, which keeps the order
	gathering bool
	buf       *[]byte // what was gathered; from the pool, nil while not gathering
}

// Write implements net.Conn.
func (g *gatherer) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.gathering {
		return g.send(p)
	}
	if len(*g.buf)+len(p) > maxGathered {
		if err := g.sendGathered(); err != nil {
			return 0, err
		}
		if len(p) > maxGathered {
			return g.send(p)
		}
	}
	*g.buf = append(*g.buf, p...)
	return len(p), nil
}

// gather holds back what is written from now on, until flush. Every gather is
// followed by a flush.
func (g *gatherer) gather() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gathering = true
	g.buf = buffers.Get().(*[]byte)
}

// flush sends what was gathered, in one write.
func (g *gatherer) flush() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := g.sendGathered()
	buffers.Put(g.buf)
	g.gathering, g.buf = false, nil
	return err
}

// sendGathered sends what is in buf. g.mu is held.
func (g *gatherer) sendGathered() error {
	if len(*g.buf) == 0 {
		return nil
	}
	_, err := g.send(*g.buf)
	*g.buf = (*g.buf)[:0]
	return err
}

// send writes to the network. g.mu is held.
func (g *gatherer) send(p []byte) (int, error) {
	if err := g.SetWriteDeadline(time.Now().Add(g.timeout)); err != nil {
		return 0, err
	}
	return g.Conn.Write(p)
}

// buffers are shared by all connections: most of them are silent at any time.
var buffers = sync.Pool{New: func() any {
	b := make([]byte, 0, 16<<10)
	return &b
}}

// A hijacker is a ResponseWriter whose connection, once the WebSocket library
// takes it over, is a gatherer.
type hijacker struct {
	http.ResponseWriter
	timeout time.Duration
	conn    *gatherer // set by Hijack
}

// Hijack implements http.Hijacker.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	h.conn = &gatherer{Conn: conn, timeout: h.timeout}
	// The library's buffer only has to join a header with what follows it; the
	// gathering is ours. 256 bytes hold any control frame.
	return h.conn, bufio.NewReadWriter(rw.Reader, bufio.NewWriterSize(h.conn, 256)), nil
}
