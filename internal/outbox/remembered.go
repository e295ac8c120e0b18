package outbox

import "time"

const (
	// RememberedFor is how long the numbers of a channel are remembered after it
	// was last published to. While they are, receivers can tell how many messages
	// they missed; after that the channel begins a new stream.
	RememberedFor = 10 * time.Minute
	// maxRemembered bounds the number of channels that are remembered.
	maxRemembered = 100_000
)

// Remembered are the numbers of channels whose outboxes are forgotten: see
// Outbox.Numbers and Outbox.Restore. The zero value is empty.
type Remembered struct {
	kept  map[string]number
	queue []agedChannel // in the order of their time; may hold what was taken since
}

type number struct {
	stream, next uint64
	at           time.Time
}

type agedChannel struct {
	channel string
	at      time.Time
}

// Keep remembers the numbers of a channel whose outbox is being forgotten.
func (r *Remembered) Keep(channel string, stream, next uint64, now time.Time) {
	if stream == 0 {
		return // nothing was published
	}
	if r.kept == nil {
		r.kept = make(map[string]number)
	}
	r.kept[channel] = number{stream, next, now}
	r.queue = append(r.queue, agedChannel{channel, now})
	for len(r.queue) > maxRemembered {
		r.drop()
	}
}

// Take returns the numbers of a channel, and forgets them. They are zero if
// there are none.
func (r *Remembered) Take(channel string) (stream, next uint64) {
	k := r.kept[channel]
	delete(r.kept, channel)
	return k.stream, k.next
}

// Forget forgets what is too old, and returns when it is to be called again,
// the zero time if nothing is left.
func (r *Remembered) Forget(now time.Time) time.Time {
	for len(r.queue) > 0 {
		if due := r.queue[0].at.Add(RememberedFor); due.After(now) {
			return due
		}
		r.drop()
	}
	r.queue, r.kept = nil, nil
	return time.Time{}
}

// drop forgets the oldest.
func (r *Remembered) drop() {
	old := r.queue[0]
	r.queue = r.queue[1:]
	if r.kept[old.channel].at.Equal(old.at) {
		delete(r.kept, old.channel)
	}
}
