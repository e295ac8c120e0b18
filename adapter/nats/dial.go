package nats

import (
	"net"

	"github.com/nats-io/nats.go"
)

// A conn is a connection that is closed when a write fails. The client drops
// what it could not write, and would go on with the connection unless a part
// was written. The answer to a later ping would then confirm frames that the
// server never got.
type conn struct{ net.Conn }

func (c conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err != nil {
		_ = c.Conn.Close() // the client notices that when it reads, and connects again
	}
	return n, err
}

func wrapped(c net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	return conn{c}, nil
}

// A dialer makes such connections.
type dialer struct{ nats.CustomDialer }

func (d dialer) Dial(network, address string) (net.Conn, error) {
	return wrapped(d.CustomDialer.Dial(network, address))
}

// SkipTLSHandshake is an optional method of the client's dialers.
func (d dialer) SkipTLSHandshake() bool {
	skips, ok := d.CustomDialer.(interface{ SkipTLSHandshake() bool })
	return ok && skips.SkipTLSHandshake()
}

// An inProcess makes such connections to a server of this process.
type inProcess struct{ nats.InProcessConnProvider }

func (p inProcess) InProcessConn() (net.Conn, error) {
	return wrapped(p.InProcessConnProvider.InProcessConn())
}

// closeOnFailedWrite has the client make such connections.
func closeOnFailedWrite(o *nats.Options) {
	if o.InProcessServer != nil {
		o.InProcessServer = inProcess{o.InProcessServer}
	}
	d := o.CustomDialer
	if d == nil {
		own := net.Dialer{Timeout: o.Timeout}
		if o.Dialer != nil {
			own = *o.Dialer
		}
		if o.AllowMultipathTCP != nil {
			own.SetMultipathTCP(*o.AllowMultipathTCP)
		}
		d = &own
	}
	o.CustomDialer = dialer{d}
}
