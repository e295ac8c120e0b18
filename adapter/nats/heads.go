package nats

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/adapter/nats/internal/numbers"
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

	awaited map[string]*turn    // channels for whose next record somebody waits
	claims  map[string]*claimed // channels that this hub leaves to another
}

// claimed is what another hub has said of a channel.
type claimed struct {
	id    numbers.ID
	until time.Time
	over  chan struct{} // closed when it has appended
}

// A turn ends when a record is received.
type turn struct {
	over    chan struct{}
	waiting int
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
			delete(h.claims, other)
			break
		}
	}
	if h.known[channel].seq < v.seq {
		h.endTurn(channel)
	}
	h.known[channel] = v
}

// asked notes the last record that the stream has named, and returns it. A
// later one may have been received since number before was the last that was
// known; then asked returns that.
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
	maps.DeleteFunc(h.claims, func(channel string, _ *claimed) bool { return partitionOf(channel, n) == p })
}

// follow notes a record that was received, of a channel that is known.
func (h *heads) follow(r *record, seq uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if v, ok := h.known[r.channel]; ok && v.seq < seq {
		now := head{record: *r, seq: seq, time: time.Now()}
		now.frame = nil
		h.known[r.channel] = now
		h.endTurn(r.channel)
	}
}

// endTurn wakes those that wait for a channel's next record. h.mu is held.
func (h *heads) endTurn(channel string) {
	if t := h.awaited[channel]; t != nil {
		close(t.over)
		delete(h.awaited, channel)
	}
}

// claimed notes that another hub wants to append to a channel first, or that it
// no longer does.
func (h *heads) claimed(m claim, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.known[m.channel]; !ok {
		return // this hub has nothing to do with it
	}
	c := h.claims[m.channel]
	switch {
	case m.wait == 0 && c != nil && c.id == m.id:
		close(c.over)
		delete(h.claims, m.channel)
	case m.wait == 0:
	case c != nil && c.until.After(now.Add(m.wait)):
	case c != nil: // the later claim includes the earlier one
		c.id, c.until = m.id, now.Add(m.wait)
	default:
		if h.claims == nil {
			h.claims = make(map[string]*claimed)
		}
		h.claims[m.channel] = &claimed{id: m.id, until: now.Add(m.wait), over: make(chan struct{})}
	}
}

// yield waits if another hub has claimed a channel: until that hub has
// appended, or the claim ends, or ctx.
func (h *heads) yield(ctx context.Context, channel string, now time.Time) {
	h.mu.Lock()
	c := h.claims[channel]
	if c == nil {
		h.mu.Unlock()
		return
	}
	until := c.until
	h.mu.Unlock()
	timer := time.NewTimer(until.Sub(now))
	defer timer.Stop()
	select {
	case <-c.over:
	case <-timer.C:
	case <-ctx.Done():
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.claims[channel] == c && ctx.Err() == nil {
		delete(h.claims, channel)
	}
}

// await waits until a record of a channel has been received that is later than
// number seq, for d at most. It reports whether there is one.
func (h *heads) await(ctx context.Context, channel string, seq uint64, d time.Duration) bool {
	h.mu.Lock()
	if h.known[channel].seq > seq {
		h.mu.Unlock()
		return true
	}
	t := h.awaited[channel]
	if t == nil {
		t = &turn{over: make(chan struct{})}
		if h.awaited == nil {
			h.awaited = make(map[string]*turn)
		}
		h.awaited[channel] = t
	}
	t.waiting++
	h.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-t.over:
	case <-timer.C:
	case <-ctx.Done():
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if t.waiting--; t.waiting == 0 && h.awaited[channel] == t {
		delete(h.awaited, channel)
	}
	return h.known[channel].seq > seq
}
