package adapter

import "time"

// Retention bounds what a room keeps: its latest messages, up to a number and
// an age. A room that has been idle for longer than Age costs only a note of
// where its history was, which is kept a day longer.
type Retention struct {
	// Messages is the number of messages that are kept: 1 to 1,000,000.
	Messages int
	// Age is how long a message is kept: 1 s to 366 days, in whole
	// milliseconds. Default 24 h. The backend's clock decides; for a hub
	// without an adapter and for adapter/memory that is the clock of the
	// process.
	Age time.Duration
}
