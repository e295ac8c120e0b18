package adapter

// HealthChecker is an optional capability of an Adapter: it knows the state of
// its links without sending anything through them.
type HealthChecker interface {
	// Health returns nil while everything that is subscribed is connected and
	// confirmed, and the backend does what is asked of it; otherwise an error
	// that says what is wrong. It does not wait. Its text is also part of the
	// errors of calls that end with their context.
	Health() error
}

// AsyncPublisher is an optional capability of an Adapter: it publishes without a
// goroutine that waits. Hubs with many rooms that are spoken to at once use it, so
// that a frame costs no goroutine. A wrapper that changes what Publish does
// has to change this as well, or hide it.
type AsyncPublisher interface {
	// PublishAsync publishes without waiting for the backend. It returns at once, and
	// done.Complete is called once, on another goroutine, with what Publish would
	// have returned; it may be before PublishAsync returns. The adapter bounds the
	// time that takes to a few seconds.
	//
	// False means that the adapter has done nothing and calls nobody, because it
	// would have to wait (it does not know the way yet), or is closed: Publish does
	// it, or says so. For one channel there is one call of PublishAsync or Publish
	// at a time, which lasts until Complete is called. When Close has returned,
	// Complete has been called, and has returned, for every call that returned true.
	PublishAsync(channel string, frame []byte, done Completion) bool
}

// A Completion is told how a PublishAsync has ended; the hub has them.
type Completion interface {
	// Complete is given what Publish returns. It does not block, and may call
	// PublishAsync.
	Complete(receivers int, err error)
}
