package adapter

import "context"

// An Adapter carries frames between hubs. It is the whole of what a backend
// has to do: the hub brings rooms, order, gaps, batching and retries, the
// adapter brings bytes from one process to the others.
//
// A channel is a name to which hubs subscribe; a frame is a run of bytes that
// one hub publishes to a channel. Both are opaque to the adapter. Channel
// names are valid UTF-8 of at most a kilobyte, control characters included,
// with a Redis hash tag in them (fanout:r:{room}); frames are bounded by the
// hub's MaxMessage and some 64 KiB for a batch of smaller messages, or some
// 600 KiB for the names that the selection of a single message leaves out.
//
// An adapter promises, for each channel:
//
//   - order: frames reach every subscriber in one order, the same for all;
//   - once: a frame is handed over once for each Publish, except that a Publish
//     that the adapter itself had to repeat may show twice;
//   - honesty: frames may be missing, as the receiver sees their sequence,
//     between an Interrupted and its Restored, and at no other place. (A frame
//     that was on its way when the link broke was published before.)
//
// An adapter belongs to one hub, which attaches it in fanout.New and
// closes in Hub.Close, or in New if that fails. Package adaptertest holds this contract as a test suite.
//
// An adapter may also have the optional capabilities [HealthChecker],
// [AsyncPublisher] and [Historian].
type Adapter interface {
	// Attach tells the adapter who receives its frames. New calls it once,
	// before anything else. A second call is an error, and so is a call after
	// Close (ErrClosed).
	//
	// It does not wait for the backend: an adapter whose backend is down
	// attaches, and connects when it can. The receiver that a Historian gets may
	// be a HistoryReceiver; the hub's is.
	Attach(r Receiver) error

	// Subscribe asks for the frames of a channel. It returns nil when the
	// backend has confirmed: every frame that is published to the channel
	// after that, by any hub, reaches the receiver or falls between
	// Interrupted and Restored.
	//
	// While the backend cannot be reached Subscribe waits and tries again; it
	// returns an error only when ctx ends (then the channel is not subscribed,
	// even if it was, and the adapter undoes in its own time what it has
	// begun), when the adapter is closed (ErrClosed), or when the backend
	// refuses for a reason that waiting does not cure, such as missing rights
	// (ErrRefused).
	//
	// It is called concurrently, but for one channel there is never more than
	// one call of Subscribe or Unsubscribe at a time. Subscribing to what is
	// subscribed is no error and waits for nothing but the confirmation.
	Subscribe(ctx context.Context, channel string) error

	// Unsubscribe ends a subscription. When it returns a call of the receiver
	// for the channel that was running has returned, and the receiver gets
	// nothing more of it until Subscribe is called again; what was published
	// before that does not come then. It need not wait until the backend has
	// stopped sending, but the adapter sees to it that it does, however links
	// break meanwhile: nothing stays subscribed there that is not wanted.
	// Unsubscribing from what is not subscribed is no error.
	// It is not called by a method of the receiver; nor is Close.
	//
	// It may wait for the end of that call whatever becomes of ctx, since a
	// receiver does not block. ctx bounds any other wait; the subscription is
	// over all the same.
	Unsubscribe(ctx context.Context, channel string) error

	// Publish sends a frame to all who are subscribed to the channel,
	// including this adapter's own receiver if it is. The publisher need not
	// be subscribed.
	//
	// It returns nil when the backend has taken the frame, and how many
	// subscribers it was handed to, or -1 if the backend cannot tell. An
	// adapter that is subscribed to the channel itself and learns that nobody
	// got the frame treats that as a broken subscription, mends it, and sends
	// the frame again before it returns.
	//
	// An error means that the frame may or may not have been delivered, unless
	// it wraps ErrUnsent: then it cannot have been. The hub repeats a failed
	// Publish in a form that receivers recognise, so an adapter never repeats
	// one that may have arrived. An error that wraps ErrRefused is not repeated.
	// An adapter that has no connection yet may wait for one, or return
	// ErrUnsent at once.
	//
	// The frame is never modified again by anyone; the adapter may keep it.
	// Publish is called concurrently, but for one channel one call at a time:
	// two frames of a channel are in the order of their calls. ctx cancels the
	// wait: Publish then returns an error that wraps that of ctx or ErrUnsent.
	// After Close it returns an error that wraps ErrClosed and ErrUnsent.
	Publish(ctx context.Context, channel string, frame []byte) (receivers int, err error)

	// Close ends everything: when it returns nil the receiver is not called
	// again, calls that were waiting have returned, and goroutines,
	// subscriptions and connections of the adapter's own are gone. What the
	// adapter was given, such as a Redis client, stays open. A second call
	// waits for the first and returns nil.
	//
	// If ctx ends first, Close returns its error and goes on in the background.
	Close(ctx context.Context) error
}

// A Receiver gets what an Adapter carries; the hub is one. Its methods never
// block and may be called from the goroutine that reads the connection. Calls
// for one channel never overlap; calls for different channels may.
type Receiver interface {
	// Receive hands over a frame of a subscribed channel. The receiver keeps
	// the frame: the adapter does not touch its bytes again, and neither do
	// other receivers that may share it.
	Receive(channel string, frame []byte)

	// Interrupted says that from here on frames of the channel may be missing:
	// a link broke, or the channel's home is moving. It is called only for a
	// channel whose subscription was confirmed.
	Interrupted(channel string)

	// Restored says that the subscription stands again, confirmed by the
	// backend: every later frame arrives. Interrupted and Restored of a channel
	// alternate. Frames may come in between, if there were others that did not.
	Restored(channel string)
}
