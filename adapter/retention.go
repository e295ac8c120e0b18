package adapter

import "time"

// Retention is how much history a room keeps: its latest messages, as long as
// they are not too old. Both bounds apply. A room that has been idle for longer
// than Age takes no space but a record of where its history was, which lasts a
// day longer.
type Retention struct {
	// Messages is how many are kept: 1 to 1,000,000.
	Messages int
	// Age is how long a message is kept: 1 s to 366 days, in whole milliseconds.
	// Default 24 h. It is counted by the backend's clock; of a hub that is alone
	// and of adapter/memory by that of the process.
	Age time.Duration
}
