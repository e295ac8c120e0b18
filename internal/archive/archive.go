// Package archive keeps the latest messages of channels in memory, as
// fanout.Historian describes it. It is what a backend without a server has for a
// history: of a hub that is alone, and of adapter/memory.
package archive

import (
	"slices"
	"sort"
	"sync"
	"time"
)

// The types of package fanout that have the same names say what they mean.
// (They cannot be used here: fanout itself imports this package.)
type (
	// Position is a place in a history.
	Position struct{ Epoch, Offset uint64 }
	// PastEpoch is an epoch that is over.
	PastEpoch struct {
		Epoch, Last uint64
		Whole       bool
	}
	// Record is a frame to be kept.
	Record struct {
		Frame       []byte
		Messages    int
		Time        time.Time
		Keep        Keep
		Publisher   string
		Stream, Seq uint64
	}
	// Keep is how much is kept.
	Keep struct {
		Messages int
		Age      time.Duration
	}
	// Frame is one that is kept.
	Frame struct {
		At   Position
		Data []byte

		first uint64 // offset of its first message
		time  time.Time
	}
	// Page is a part of a history.
	Page struct {
		Head   Position
		Before []PastEpoch
		First  uint64
		Frames []Frame
		More   bool
	}
)

const (
	// noteAge is how much longer than its messages the note of a channel's
	// position is kept.
	noteAge = 24 * time.Hour
	// sweepEvery is how often channels that have expired are looked for.
	sweepEvery = 10 * time.Second
	// maxPast is how many past epochs are remembered.
	maxPast = 64
)

// A Store holds the histories of all channels. Its methods may be called
// concurrently and wait for nothing. The zero Store is empty and ready to use.
type Store struct {
	mu       sync.Mutex // guards all below
	channels map[string]*channel
	sweepAt  time.Time
	floor    uint64 // no epoch of before is as large
}

type channel struct {
	head    Position
	before  []PastEpoch
	frames  []Frame
	marks   map[string]mark // by publisher
	expires time.Time
}

// A mark is how far a publisher has come.
type mark struct{ stream, next, offset uint64 }

// Append keeps a frame and returns its position. It is not fresh when the frame
// was there before.
func (s *Store) Append(name string, r *Record) (at Position, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep(r.Time)
	c := s.channels[name]
	if c == nil {
		c = &channel{head: Position{Epoch: max(uint64(r.Time.UnixMilli()), s.floor)}, marks: make(map[string]mark)}
		if s.channels == nil {
			s.channels = make(map[string]*channel)
		}
		s.channels[name] = c
	}
	if m, ok := c.marks[r.Publisher]; ok && r.Publisher != "" && m.stream == r.Stream && r.Seq < m.next {
		return c.head, false
	}
	first := c.head.Offset + 1
	c.head.Offset += uint64(r.Messages)
	c.frames = append(c.frames, Frame{At: c.head, Data: r.Frame, first: first, time: r.Time})
	if r.Publisher != "" {
		c.marks[r.Publisher] = mark{r.Stream, r.Seq + uint64(r.Messages), c.head.Offset}
	}
	c.trim(r.Keep, r.Time)
	c.expires = r.Time.Add(r.Keep.Age + noteAge)
	return c.head, true
}

// trim drops what is outside of keep.
func (c *channel) trim(keep Keep, now time.Time) {
	n := c.firstKept(keep, now)
	if n == 0 {
		return
	}
	clear(c.frames[:n])
	c.frames = c.frames[n:]
	for publisher, m := range c.marks { // it has not been heard since: a retry is long over
		if m.offset+uint64(keep.Messages) < c.head.Offset {
			delete(c.marks, publisher)
		}
	}
}

// firstKept returns the index of the first frame that is not outside of keep.
func (c *channel) firstKept(keep Keep, now time.Time) int {
	oldest := now.Add(-keep.Age)
	n := 0
	for n < len(c.frames) && (c.frames[n].At.Offset+uint64(keep.Messages) <= c.head.Offset || c.frames[n].time.Before(oldest)) {
		n++
	}
	return n
}

// sweep forgets channels that have expired.
func (s *Store) sweep(now time.Time) {
	if now.Before(s.sweepAt) {
		return
	}
	s.sweepAt = now.Add(sweepEvery)
	for name, c := range s.channels {
		if c.expires.Before(now) {
			delete(s.channels, name)
		}
	}
}

// Read returns a page of what comes after since: frames until it has limit
// messages, or that many bytes if bytes is not 0.
func (s *Store) Read(name string, since Position, limit, bytes int, keep Keep, now time.Time) Page {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.channels[name]
	if c == nil || c.expires.Before(now) {
		return Page{First: 1}
	}
	kept := c.frames[c.firstKept(keep, now):]
	p := Page{Head: c.head, Before: slices.Clone(c.before), First: c.head.Offset + 1}
	if len(kept) > 0 {
		p.First = kept[0].first
		// A frame may reach over the bound.
		if n := c.head.Offset - uint64(min(keep.Messages, int(c.head.Offset))) + 1; n > p.First {
			p.First = n
		}
	}
	from := c.branch(since)
	kept = kept[sort.Search(len(kept), func(i int) bool { return kept[i].At.Offset > from }):]
	messages, size := 0, 0
	for i, f := range kept {
		if messages >= limit || bytes > 0 && size >= bytes {
			p.More = true
			kept = kept[:i]
			break
		}
		messages += int(f.At.Offset - f.first + 1)
		size += len(f.Data)
	}
	p.Frames = slices.Clone(kept)
	return p
}

// branch returns the offset up to which since and the history are the same.
func (c *channel) branch(since Position) uint64 {
	for _, past := range c.before {
		if past.Epoch == since.Epoch {
			return min(since.Offset, past.Last)
		}
	}
	if since.Epoch == c.head.Epoch {
		return since.Offset
	}
	for _, f := range c.frames { // it is not known: what came in later epochs
		if f.At.Epoch > since.Epoch {
			return f.first - 1
		}
	}
	return c.head.Offset
}

// Lose makes all histories lose their latest frames, as many as that, and begin
// a new epoch: a server has taken over that lacked them. Whole means that the
// server claims to have all.
func (s *Store) Lose(frames int, whole bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.channels {
		last := c.head.Offset
		if n := min(frames, len(c.frames)); n > 0 {
			last = c.frames[len(c.frames)-n].first - 1
			c.frames = slices.Delete(c.frames, len(c.frames)-n, len(c.frames))
		}
		c.before = append(c.before, PastEpoch{Epoch: c.head.Epoch, Last: last, Whole: whole})
		if len(c.before) > maxPast {
			c.before = slices.Delete(c.before, 0, 1)
		}
		c.head = Position{Epoch: c.head.Epoch + 1, Offset: last}
		s.floor = max(s.floor, c.head.Epoch+1)
		for publisher, m := range c.marks {
			if m.offset > last {
				delete(c.marks, publisher)
			}
		}
	}
}

// Clear makes all histories disappear, as a server does that restarts empty.
func (s *Store) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.channels {
		s.floor = max(s.floor, c.head.Epoch+1)
	}
	clear(s.channels)
}
