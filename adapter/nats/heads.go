package nats

import (
	"context"
	"maps"
	"sync"
	"time"
)

// A head is the last record of a channel's history, without its frame.
type head struct {
	record
	seq  uint64 // in the stream; 0: there is none
	time time.Time

	// doubted means that the stream has to be asked for the last record. It is
	// certain that it had number seq.
	doubted bool
}

// heads remembers the last records of channels that this hub appends to. One
// that is out of date costs a round trip.
type heads struct {
	mu    sync.Mutex
	known map[string]head
	ages  map[string][]sample

	awaited map[string]*waiters // by channel
}

// waiters are calls of await that wait for the next record of a channel.
type waiters struct {
	arrived chan struct{} // closed when the record is known
	number  int
}

// A sample is a number of a stream, and when the stream had reached it.
type sample struct {
	seq  uint64
	time time.Time
}

// samples is the largest number of samples in the time for which a channel
// keeps its messages.
const samples = 8

// age notes a number that a channel appended, and returns the last one that is
// older than age, or 0 if there is none that was not returned before.
func (h *heads) age(channel string, seq uint64, age time.Duration, now time.Time) (old uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := h.ages[channel]
	for len(list) > 0 && now.Sub(list[0].time) > age {
		old = list[0].seq
		list = list[1:]
	}
	if n := len(list); n == 0 || now.Sub(list[n-1].time) > age/samples {
		list = append(list, sample{seq, now})
	}
	if h.ages == nil {
		h.ages = make(map[string][]sample)
	}
	if _, ok := h.ages[channel]; !ok && len(h.ages) >= maxHeads {
		for other := range h.ages { // any
			delete(h.ages, other)
			break
		}
	}
	h.ages[channel] = list
	return old
}

const maxHeads = 10_000

func (h *heads) get(channel string) (head, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, ok := h.known[channel]
	return v, ok
}

func (h *heads) set(channel string, v head) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.setLocked(channel, v)
}

// setLocked is set. h.mu is held.
func (h *heads) setLocked(channel string, v head) {
	v.frame = nil
	if h.known == nil {
		h.known = make(map[string]head)
	}
	if _, ok := h.known[channel]; !ok && len(h.known) >= maxHeads {
		for other := range h.known { // any
			delete(h.known, other)
			break
		}
	}
	if h.known[channel].seq < v.seq {
		h.wake(channel)
	}
	h.known[channel] = v
}

// asked notes the last record of a channel, which the stream was asked for, and
// returns it. If a later one has been received since the question, when number
// before was the last that was known, asked keeps and returns that.
func (h *heads) asked(channel string, before uint64, v head) head {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := h.known[channel]; now.seq > before && now.seq > v.seq {
		return now
	}
	h.setLocked(channel, v)
	return v
}

// appended notes a record that this hub has appended. A later one may have been
// received already.
func (h *heads) appended(channel string, v head) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.known[channel].seq < v.seq {
		h.setLocked(channel, v)
	}
}

// doubt notes that a record may have been appended, or have been lost.
func (h *heads) doubt(channel string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if v, ok := h.known[channel]; ok {
		v.doubted = true
		h.known[channel] = v
	}
}

// dropOf forgets the channels in partition p of n.
func (h *heads) dropOf(p, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.known, func(channel string, _ head) bool { return partitionOf(channel, n) == p })
}

// follow notes a record that was received, of a channel that is known.
func (h *heads) follow(r *record, seq uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if v, ok := h.known[r.channel]; ok && v.seq < seq {
		now := head{record: *r, seq: seq, time: time.Now()}
		now.frame = nil
		h.known[r.channel] = now
		h.wake(r.channel)
	}
}

// wake ends the waits for a channel's next record. h.mu is held.
func (h *heads) wake(channel string) {
	if w := h.awaited[channel]; w != nil {
		close(w.arrived)
		delete(h.awaited, channel)
	}
}

// await waits until a record of a channel is known that is later than number
// seq, for d at most. It reports whether there is one.
func (h *heads) await(ctx context.Context, channel string, seq uint64, d time.Duration) bool {
	h.mu.Lock()
	if h.known[channel].seq > seq {
		h.mu.Unlock()
		return true
	}
	w := h.awaited[channel]
	if w == nil {
		w = &waiters{arrived: make(chan struct{})}
		if h.awaited == nil {
			h.awaited = make(map[string]*waiters)
		}
		h.awaited[channel] = w
	}
	w.number++
	h.mu.Unlock()
	waitFor(ctx, w.arrived, d)
	h.mu.Lock()
	defer h.mu.Unlock()
	if w.number--; w.number == 0 && h.awaited[channel] == w {
		delete(h.awaited, channel)
	}
	return h.known[channel].seq > seq
}

// waitFor waits until done is closed, for d at most. It reports whether done is
// closed.
func waitFor(ctx context.Context, done <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}
