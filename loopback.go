package fanout

import (
	"context"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/archive"
)

// A loopback is the adapter of a hub that is alone: what it publishes comes
// back to it at once, and what is kept is kept in memory.
type loopback struct {
	history archive.Store
	wake    func() // has the janitor call history.Sweep

	mu       sync.RWMutex // guards all below
	receiver adapter.HistoryReceiver
	channels map[string]*sync.Mutex // held while the receiver is called: calls for a channel never overlap
	closed   bool
}

func newLoopback() *loopback { return &loopback{channels: make(map[string]*sync.Mutex)} }

func (l *loopback) Attach(r Receiver) error {
	l.receiver = r.(adapter.HistoryReceiver) // the hub's is one
	l.wake = r.(receiver).h.janitor.wake
	return nil
}

func (l *loopback) Subscribe(_ context.Context, channel string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	if l.channels[channel] == nil {
		l.channels[channel] = new(sync.Mutex)
	}
	return nil
}

func (l *loopback) Unsubscribe(_ context.Context, channel string) error {
	l.mu.Lock()
	delete(l.channels, channel)
	l.mu.Unlock()
	return nil
}

func (l *loopback) Publish(_ context.Context, channel string, frame []byte) (int, error) {
	return l.deliver(channel, func() { l.receiver.Receive(channel, frame) })
}

// deliver calls f if the channel is subscribed, and never twice at a time for it.
func (l *loopback) deliver(channel string, f func()) (int, error) {
	l.mu.RLock()
	defer l.mu.RUnlock() // held to the end, so that Close and Unsubscribe wait
	if l.closed {
		return 0, adapter.Unsent(ErrClosed)
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

// Append implements Historian. The hub publishes one frame of a channel at a
// time, so the order of the history is the order of delivery.
func (l *loopback) Append(_ context.Context, channel string, r adapter.Record) (at adapter.Position, receivers int, err error) {
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

// History implements Historian.
func (l *loopback) History(_ context.Context, channel string, q adapter.Query) (adapter.Page, error) {
	return l.history.Read(channel, q.Since, q.Limit, q.Bytes, q.Keep, time.Now()), nil
}

func (l *loopback) Close(context.Context) error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	return nil
}
