// Package tcpproxy has a proxy that passes on connections to a server until it
// is told not to: for tests that cut servers off from their clients, or from
// each other.
//
//	client ──> proxy ──> server      Hold: bytes stay where they are
//	                                 Delay: bytes take longer
//	                                 Reset: all connections close
package tcpproxy

import (
	"io"
	"net"
	"sync"
	"time"
)

// A Proxy passes on connections. Its methods may be called concurrently.
type Proxy struct {
	listener net.Listener
	target   string
	tasks    sync.WaitGroup

	mu     sync.Mutex // guards all below
	held   bool
	delay  time.Duration
	gate   chan struct{} // closed while it is not held
	conns  map[net.Conn]bool
	closed bool
}

// New returns a proxy to a server, on a port of loopback. Close it at the end.
func New(target string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: l, target: target, gate: make(chan struct{}), conns: make(map[net.Conn]bool)}
	close(p.gate)
	p.tasks.Go(p.accept)
	return p, nil
}

// Addr returns where the proxy listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Hold makes the proxy silent, or has it go on: bytes stay where they are, and
// new connections get no answer.
func (p *Proxy) Hold(held bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case held && !p.held:
		p.gate = make(chan struct{})
	case !held && p.held:
		close(p.gate)
	}
	p.held = held
}

// Delay makes bytes take longer, from now on: at least d in each direction, and
// 2d if others were under way when they came.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Reset closes all connections.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

// Close ends all connections and waits for the proxy's goroutines.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.listener.Close()
	p.Hold(false)
	p.Reset()
	p.tasks.Wait()
}

func (p *Proxy) pass() {
	p.mu.Lock()
	gate, delay := p.gate, p.delay
	p.mu.Unlock()
	time.Sleep(delay)
	<-gate
}

// track notes a connection for Reset. It reports false if the proxy is closed.
func (p *Proxy) track(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) forget(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.tasks.Go(func() { p.serve(c) })
	}
}

func (p *Proxy) serve(c net.Conn) {
	defer c.Close()
	if !p.track(c) {
		return
	}
	defer p.forget(c)
	p.pass()
	s, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer s.Close()
	if !p.track(s) {
		return
	}
	defer p.forget(s)
	var copies sync.WaitGroup
	for _, pair := range [][2]net.Conn{{c, s}, {s, c}} {
		copies.Go(func() {
			p.copy(pair[0], pair[1])
			c.Close()
			s.Close()
		})
	}
	copies.Wait()
}

func (p *Proxy) copy(to io.Writer, from io.Reader) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		p.pass()
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
