package nats_test

import (
	"bytes"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter/nats"
	client "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// A failing connection does not write what contains a certain text, once.
type failing struct {
	net.Conn
	text   string
	failed *atomic.Bool
}

func (f failing) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(f.text)) && !f.failed.Swap(true) {
		return 0, os.ErrDeadlineExceeded
	}
	return f.Conn.Write(b)
}

// Dial is that of the client's dialers.
func (f failing) Dial(network, address string) (net.Conn, error) {
	c, err := net.Dial(network, address)
	f.Conn = c
	return f, err
}

// The client drops what it could not write. The answer to a later ping must not
// confirm it.
func TestFailedWrite(t *testing.T) {
	f := startFleet(t, 1, nil)
	fails := failing{text: "the frame", failed: new(atomic.Bool)}
	a := attached(t, newAdapter(t, f.addr(0), nats.Options{Connect: []client.Option{client.SetCustomDialer(fails)}}))
	connected(t, a)
	for range 20 { // the client's flusher writes some of them, and its pings the others
		fails.failed.Store(false)
		_, err := a.Publish(within(t), "room", []byte("the frame"))
		require.Error(t, err)
		require.Eventually(t, func() bool {
			_, err := a.Publish(within(t), "room", []byte("another one"))
			return err == nil
		}, 10*time.Second, time.Millisecond)
	}
}
