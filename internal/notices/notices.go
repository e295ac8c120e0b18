// Package notices sends notices: frames without numbered messages, by which
// hubs talk to each other.
package notices

import (
	"context"
	"time"

	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/wire"
)

// Timeout bounds how long the backend may take for one notice that nobody waits
// for.
const Timeout = 5 * time.Second

// A Channel is one that a hub publishes to. Its methods may be called
// concurrently, without locks.
type Channel interface {
	// Notify sends a notice in its turn, and waits until the backend has taken
	// it. It returns how many hubs that reached, -1 if the backend cannot tell.
	Notify(ctx context.Context, notice []byte) (receivers int, err error)
	// Hold keeps the channel from being forgotten until Release.
	Hold()
	// Release ends a Hold.
	Release()
}

// A Sender sends a hub's notices. Its fields do not change once it is in use.
type Sender struct {
	Hub     uint64          // its number
	Context context.Context // ends with the hub, with ErrClosed

	// Go calls a function on a goroutine that the hub waits for when it closes.
	Go func(func())
	// Everyone returns the channel that all hubs listen to. It is always there.
	Everyone func() Channel
	// Inbox returns the inbox of a hub. It is held.
	Inbox func(hub uint64) Channel
}

// Frame returns the notice that carries a payload.
func (s *Sender) Frame(p control.Payload) []byte { return s.FrameOf(p.Append(nil)) }

// FrameOf is Frame for a payload that is encoded.
func (s *Sender) FrameOf(payload []byte) []byte {
	return wire.AppendControl(nil, s.Hub, uint64(time.Now().UnixMilli()), payload)
}

// Tell sends an encoded payload to the inbox of a hub. It returns how many hubs
// that reached, as Notify does.
func (s *Sender) Tell(ctx context.Context, hub uint64, payload []byte) (receivers int, err error) {
	c := s.Inbox(hub)
	defer c.Release()
	return c.Notify(ctx, s.FrameOf(payload))
}

// NotifyEveryone sends a notice to all hubs.
func (s *Sender) NotifyEveryone(notice []byte) error { return s.notify(s.Everyone(), notice) }

// NotifyHub sends a notice to the inbox of one hub.
func (s *Sender) NotifyHub(hub uint64, notice []byte) error {
	c := s.Inbox(hub)
	defer c.Release()
	return s.notify(c, notice)
}

func (s *Sender) notify(c Channel, notice []byte) error {
	ctx, cancel := context.WithTimeout(s.Context, Timeout)
	defer cancel()
	_, err := c.Notify(ctx, notice)
	return err
}

// Beside calls f on a goroutine of its own, and holds the channel until f has
// returned.
func (s *Sender) Beside(c Channel, f func()) {
	c.Hold()
	s.Go(func() {
		defer c.Release()
		f()
	})
}
