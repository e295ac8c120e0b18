package fanout

import (
	"context"
	"fmt"
	"sync"
)

// A loopback is the adapter of a hub that is alone: what it publishes comes
// back to it at once.
type loopback struct {
	mu       sync.RWMutex // guards all
	receiver Receiver
	channels map[string]*sync.Mutex // held while the receiver is called: calls for a channel never overlap
	closed   bool
}

func newLoopback() *loopback { return &loopback{channels: make(map[string]*sync.Mutex)} }

func (l *loopback) Attach(r Receiver) error {
	l.receiver = r
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
	l.mu.RLock()
	defer l.mu.RUnlock() // held to the end, so that Close and Unsubscribe wait
	if l.closed {
		return 0, fmt.Errorf("%w: %w", ErrClosed, ErrUnsent)
	}
	one := l.channels[channel]
	if one == nil {
		return 0, nil
	}
	one.Lock()
	defer one.Unlock()
	l.receiver.Receive(channel, frame)
	return 1, nil
}

func (l *loopback) Close(context.Context) error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	return nil
}
