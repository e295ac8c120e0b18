package adapter

import "context"

// An Adapter carries frames between hubs. It is all that a backend has to
// provide: the hub adds rooms, order, gaps, batching and retries, the adapter
// brings bytes from one process to the others.
//
// A channel is a name to which hubs subscribe. A frame is a sequence of bytes
// that one hub publishes to a channel. Both are opaque to the adapter. Channel
// names are valid UTF-8 of at most a kilobyte, may contain control characters,
// and have a Redis hash tag in them (fanout:r:{room}). A frame is at most as
// long as the hub's MaxMessage and some 64 KiB for a batch of smaller messages,
// or some 600 KiB for the names that the selection of a single message leaves
// out.
//
// An adapter promises, for each channel:
//
//   - order: frames reach every subscriber in one order, the same for all;
//   - once: a frame is delivered once for each Publish, except that a Publish
//     that the adapter itself had to repeat may deliver its frame twice;
//   - honesty: the receiver misses a frame only if it was lost between an
//     Interrupted and its Restored. (A frame that was being delivered when the
//     link broke was published before the break. Where a channel moves to
//     another home, a frame that was published before Restored may be lost, and
//     an earlier one of the same hub may still come after Restored, by a slower
//     way: hubs number their frames.)
//
// An adapter belongs to one hub. fanout.New attaches it; Hub.Close closes it,
// or New if it fails. Package adaptertest holds this contract as a test suite.
//
// An adapter may also have the optional capabilities [HealthChecker],
// [AsyncPublisher] and [Historian].
type Adapter interface {
	// Attach sets the receiver of the adapter's frames. New calls it once,
	// before any other method. A second call is an error, and so is a call
	// after Close (ErrClosed).
	//
	// Attach does not wait for the backend: an adapter whose backend is down
	// attaches, and connects when it can. A Historian may be attached to a
	// HistoryReceiver, as the hub's receiver is.
	Attach(r Receiver) error

	// Subscribe subscribes to a channel. It returns nil when the backend has
	// confirmed the subscription: every frame that any hub publishes to the
	// channel after that reaches the receiver, or falls between Interrupted
	// and Restored.
	//
	// While the backend cannot be reached Subscribe waits and tries again. It
	// returns an error only when ctx ends, when the adapter is closed
	// (ErrClosed), or when the backend refuses for a reason that waiting does
	// not cure, such as missing rights (ErrRefused). If ctx ends, the channel
	// is not subscribed afterwards, even if it was before; the adapter undoes
	// in the background what it has begun.
	//
	// Subscribe may be called concurrently for different channels. For one
	// channel there is never more than one call of Subscribe or Unsubscribe at
	// a time. Subscribing to a channel that is subscribed already is no error,
	// and waits only for its confirmation.
	Subscribe(ctx context.Context, channel string) error

	// Unsubscribe ends a subscription. When it returns, no call of the receiver
	// for the channel is running, and the receiver gets nothing more of the
	// channel until Subscribe is called again. Frames that the backend sent
	// earlier are not delivered then. Unsubscribe need not wait until the backend
	// has stopped sending, but the adapter makes sure that the backend does stop,
	// even if links break meanwhile. Unsubscribing from a channel that is not
	// subscribed is no error. Methods of the receiver call neither Unsubscribe nor
	// Close.
	//
	// Unsubscribe may wait for a running call of the receiver even after ctx
	// has ended, since a receiver does not block. ctx bounds any other wait;
	// the subscription ends in any case.
	Unsubscribe(ctx context.Context, channel string) error

	// Publish sends a frame to all subscribers of the channel, including this
	// adapter's own receiver if it is subscribed. The publisher need not be
	// subscribed.
	//
	// Publish returns nil when the backend has accepted the frame, with the
	// number of subscribers that the frame was sent to, or -1 if the backend
	// cannot tell. An adapter that is subscribed to the channel itself, and
	// learns that the frame reached no subscriber, concludes that its
	// subscription is broken: it subscribes again, and sends the frame again
	// before it returns.
	//
	// An error means that the frame may or may not have been delivered, unless
	// it wraps ErrUnsent: then it cannot have been. The hub repeats a failed
	// Publish in a form that receivers recognise, so an adapter must not repeat
	// one that may have arrived. The hub does not repeat a Publish whose error
	// wraps ErrRefused. An adapter that has no connection yet may wait for one,
	// or return ErrUnsent at once.
	//
	// Nobody modifies the frame after the call; the adapter may keep it.
	// Publish may be called concurrently for different channels, and for one
	// channel one call at a time: frames of a channel arrive in the order of
	// the calls. ctx cancels the wait: Publish then returns an error that wraps
	// the error of ctx or ErrUnsent. After Close it returns an error that wraps
	// ErrClosed and ErrUnsent.
	Publish(ctx context.Context, channel string, frame []byte) (receivers int, err error)

	// Close ends everything. When it returns nil the receiver is not called
	// again, calls that were waiting have returned, and the adapter's own
	// goroutines, subscriptions and connections are gone. What the adapter was
	// given, such as a Redis client, stays open. A second call waits for the
	// first and returns nil.
	//
	// If ctx ends first, Close returns its error and continues in the
	// background.
	Close(ctx context.Context) error
}

// A Receiver gets the frames that an Adapter carries; the hub is one. Its
// methods never block and may be called from the goroutine that reads the
// connection. Calls for one channel never overlap; calls for different channels
// may.
type Receiver interface {
	// Receive delivers a frame of a subscribed channel. The receiver may keep
	// the frame: the adapter does not modify its bytes afterwards, and other
	// receivers that share the bytes do not either.
	Receive(channel string, frame []byte)

	// Interrupted reports that from now on frames of the channel may be
	// missing, because a link broke or the channel's home is moving. It is
	// called only for a channel whose subscription was confirmed.
	Interrupted(channel string)

	// Restored reports that the backend has confirmed the subscription again:
	// every frame that is published after this arrives. For one channel, calls
	// of Interrupted and Restored alternate. Some frames may arrive between the
	// two.
	Restored(channel string)
}
