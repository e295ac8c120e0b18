package adapter

// HealthChecker is an optional capability of an Adapter: it knows the state of
// its links without sending anything through them.
type HealthChecker interface {
	// Health returns nil while every subscription is connected and confirmed,
	// and the backend does what is asked of it. Otherwise the error says what
	// is wrong. Health does not wait. The hub adds its text to the errors of
	// calls that end with their context.
	Health() error
}

// AsyncPublisher is an optional capability of an Adapter: it publishes without
// a goroutine that waits. A hub uses it where it is available, so that a frame
// costs no goroutine. A wrapper that changes Publish must change PublishAsync
// as well, or hide it.
type AsyncPublisher interface {
	// PublishAsync publishes a frame without waiting for the backend. If it
	// returns true, the adapter calls done.Complete once, on another goroutine,
	// with the results that Publish would have returned. That may happen before
	// PublishAsync returns, and happens within a few seconds.
	//
	// If it returns false, the adapter has done nothing and will not call
	// Complete: it would have to wait, for example because it does not know yet
	// where to publish, or it is closed. The hub then calls Publish.
	//
	// For one channel there is one call of PublishAsync or Publish at a time; a
	// call of PublishAsync lasts until Complete is called. When Close returns,
	// Complete has returned for every call that returned true.
	PublishAsync(channel string, frame []byte, done Completion) bool
}

// A Completion receives the outcome of a PublishAsync.
type Completion interface {
	// Complete is called with the results of Publish. It does not block, and
	// may call PublishAsync.
	Complete(receivers int, err error)
}
