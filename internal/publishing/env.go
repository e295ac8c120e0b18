package publishing

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/async"
	"github.com/fanoutgo/fanout/internal/deadline"
	"github.com/fanoutgo/fanout/internal/item"
)

var (
	// ErrNoReceiver means that no hub listens to an inbox that was published
	// to.
	ErrNoReceiver = errors.New("no hub listens for the member")
	// ErrLocalOnly means that a message was delivered to members of this hub
	// only, because the backend did not take it.
	ErrLocalOnly = errors.New("delivered to local members only")

	errPanic = errors.New("the adapter panicked")
)

// Env is the hub that publishes. It does not change once a Channel uses it. Its
// functions are called without locks, unless they say otherwise.
type Env struct {
	Hub     uint64          // its number
	Home    *item.Home      // its members
	Context context.Context // ends with the hub, with adapter.ErrClosed
	Alone   bool            // there is no backend

	Adapter   adapter.Adapter
	Historian adapter.Historian      // the adapter, if it is one
	Async     adapter.AsyncPublisher // the adapter, if it is one
	// WithHealth adds to an error what the adapter knows of its links.
	WithHealth func(error) error

	Timeout       time.Duration   // Options.PublishTimeout
	Bounds        *deadline.Group // bounds a publish whose context has no deadline, by Timeout
	LocalFallback bool            // Options.LocalFallback

	Publishers *async.Publishers // that do not wait
	// Go calls a function on a goroutine that the hub waits for. It is called
	// while the hub waits for a publish, or for the adapter to close.
	Go func(func())

	Numbers   *Numbers
	NewStream func() uint64 // numbers the streams of frames
	NewCopyID func() uint64 // numbers the messages of which there may be copies

	// Counters: of messages that the backend took, of frames that carried
	// them, and of messages that the hub received.
	Published, Frames, Received *atomic.Uint64
}

// An Owner owns a channel: it is a room, or the inbox of another hub. Its
// members are the members of this hub in the room. Its methods are called
// without locks and without waiting for the backend.
type Owner interface {
	// Hold keeps the channel from being forgotten. The caller holds it already.
	Hold()
	// Release ends n holds.
	Release(n int)
	// Wrap returns the error of a message that could not be published, with the
	// name of what it was for.
	Wrap(err error) error
	// Deliver gives a message to the owner's members, at once. It has no number
	// and no place in the history. It is not called for an inbox.
	Deliver(e item.Entry)
	// DeliverFrame gives a frame that the backend did not take to the owner's
	// members. If the frame arrives after all, its numbers show that members have
	// had it. It is not called for an inbox.
	DeliverFrame(frame []byte)
}
