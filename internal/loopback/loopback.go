// Package loopback has the adapter of a hub without a backend: frames that the
// hub publishes come back to it at once, in the same call, and histories are
// kept in memory.
package loopback

import (
	"context"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/archive"
)

// An Adapter is an adapter.Adapter and an adapter.Historian. It is made by New.
type Adapter struct {
	history archive.Store
	wake    func()

	mu       sync.RWMutex // guards all below
	receiver adapter.HistoryReceiver
	channels map[string]*sync.Mutex // held while the receiver is called: calls for a channel never overlap
	closed   bool
}

// New returns an adapter that calls wake when Sweep is to be called earlier
// than it said.
func New(wake func()) *Adapter {
	return &Adapter{wake: wake, channels: make(map[string]*sync.Mutex)}
}

// Attach implements adapter.Adapter.
func (l *Adapter) Attach(r adapter.Receiver) error {
	l.receiver = r.(adapter.HistoryReceiver) // the hub's is one
	return nil
}

// Sweep drops what has expired of the histories, and returns when it is to be
// called again, the zero time if nothing is left.
func (l *Adapter) Sweep(now time.Time) time.Time { return l.history.Sweep(now) }

// Subscribe implements adapter.Adapter.
func (l *Adapter) Subscribe(_ context.Context, channel string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return adapter.ErrClosed
	}
	if l.channels[channel] == nil {
		l.channels[channel] = new(sync.Mutex)
	}
	return nil
}

// Unsubscribe implements adapter.Adapter.
func (l *Adapter) Unsubscribe(_ context.Context, channel string) error {
	l.mu.Lock()
	delete(l.channels, channel)
	l.mu.Unlock()
	return nil
}

// Publish implements adapter.Adapter.
func (l *Adapter) Publish(_ context.Context, channel string, frame []byte) (int, error) {
	return l.deliver(channel, func() { l.receiver.Receive(channel, frame) })
}

// deliver calls f if the channel is subscribed, and never twice at a time for
// it.
func (l *Adapter) deliver(channel string, f func()) (int, error) {
	l.mu.RLock()
	defer l.mu.RUnlock() // held to the end, so that Close and Unsubscribe wait
	if l.closed {
		return 0, adapter.Unsent(adapter.ErrClosed)
	}
	one := l.channels[channel]
	if one == nil {
		return 0, nil
	}
	one.Lock()
	defer one.Unlock()
	f()
	return 1, nil
}

// Append implements adapter.Historian. The hub publishes one frame of a channel
// at a time, so the order of the history is the order of delivery.
func (l *Adapter) Append(_ context.Context, channel string, r adapter.Record) (at adapter.Position, receivers int, err error) {
	at, fresh, early := l.history.Append(channel, &r, time.Now())
	if early {
		l.wake()
	}
	if !fresh {
		return at, -1, nil
	}
	receivers, err = l.deliver(channel, func() { l.receiver.ReceiveKept(channel, adapter.KeptFrame{At: at, Frame: r.Frame}) })
	return at, receivers, err
}

// History implements adapter.Historian.
func (l *Adapter) History(_ context.Context, channel string, q adapter.Query) (adapter.Page, error) {
	return l.history.Read(channel, q.Since, q.Limit, q.Bytes, q.Keep, time.Now()), nil
}

// Close implements adapter.Adapter.
func (l *Adapter) Close(context.Context) error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	return nil
}
