package adapter

// HealthChecker is an optional capability of an Adapter, which knows the state
// of its links without sending anything.
type HealthChecker interface {
	// Health returns nil while everything that is subscribed is connected and
	// confirmed, and the backend does what is asked of it. Otherwise it returns
	// an error that says what is wrong. It does not wait. The hub adds the text
	// to the errors of calls that end with their context.
	Health() error
}

// AsyncPublisher is an optional capability of an Adapter, which publishes
// without a waiting goroutine. Hubs that publish to many rooms at once use it,
// so that a frame in flight costs no goroutine. A wrapper that changes Publish
// must change PublishAsync as well, or hide it.
type AsyncPublisher interface {
	// PublishAsync publishes without waiting for the backend. It returns at
	// once. Later done.Complete is called once, on another goroutine, with the
	// result that Publish would have returned. Complete may be called before
	// PublishAsync returns. The adapter calls it within a few seconds.
	//
	// PublishAsync returns false if it has done nothing and will not call
	// Complete, because it would have to wait (for example while it does not
	// know the channel's home), or because the adapter is closed. The hub then
	// calls Publish. For one channel there is one call of PublishAsync or
	// Publish at a time; a PublishAsync counts until Complete is called. When
	// Close has returned, Complete has been called and has returned for every
	// call that returned true.
	PublishAsync(channel string, frame []byte, done Completion) bool
}

// A Completion gets the result of a PublishAsync. The hub implements it.
type Completion interface {
	// Complete is given the results of Publish. It does not block, and may
	// call PublishAsync.
	Complete(receivers int, err error)
}
