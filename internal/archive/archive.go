// Package archive keeps the latest messages of channels in memory, as
// adapter.Historian describes it. It is the history of a hub without an
// adapter, and of adapter/memory.
//
// A Store has no clock, timer or goroutine. Its owner passes the current time,
// by the clock of the process, and calls Sweep when it is due, so that expired
// frames are dropped even if nothing else uses the channel.
package archive

import (
	"container/heap"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

// A frame is a frame that is kept.
type frame struct {
	adapter.KeptFrame
	first uint64 // offset of its first message
	time  time.Time
}

const (
	// noteAge is how much longer than its messages a channel's last position is
	// kept.
	noteAge = 24 * time.Hour
	// sweepPause is the least time between two calls of Sweep, and sweepAtOnce
	// is the most channels that one call looks at.
	sweepPause  = 100 * time.Millisecond
	sweepAtOnce = 1000
	// maxPast is how many past epochs are remembered.
	maxPast = 64
)

// A Store holds the histories of all channels. Its methods may be called
// concurrently and wait for nothing. The zero Store is empty and ready to use.
type Store struct {
	mu       sync.Mutex // guards all below
	channels map[string]*channel
	queue    queue     // of all channels, by due
	sweepAt  time.Time // when the caller will call Sweep, as far as it knows; zero: never
	floor    uint64    // all earlier epochs are smaller
}

type channel struct {
	name    string
	head    adapter.Position
	before  []adapter.PastEpoch
	frames  []frame
	marks   map[string]mark // by publisher
	age     time.Duration   // how long frames are kept, by the last record
	expires time.Time       // when the channel is forgotten, with its position
	due     time.Time       // when the next frame may expire
	at      int             // in the queue
}

// A mark is the last position of a publisher.
type mark struct{ stream, next, offset uint64 }

// Append keeps a frame and returns its position. fresh is false if the frame
// was kept before. early means that Sweep has to be called earlier than it last
// said, or for the first time.
func (s *Store) Append(name string, r *adapter.Record, now time.Time) (at adapter.Position, fresh, early bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.channels[name]
	if c != nil && c.expires.Before(now) {
		s.remove(c)
		c = nil
	}
	if c == nil {
		c = &channel{name: name, head: adapter.Position{Epoch: max(uint64(max(1, now.UnixMilli())), s.floor)}, marks: make(map[string]mark)}
		if s.channels == nil {
			s.channels = make(map[string]*channel)
		}
		s.channels[name] = c
		c.due = now.Add(r.Keep.Age + 1)
		heap.Push(&s.queue, c)
	}
	if m, ok := c.marks[r.Publisher]; ok && r.Publisher != "" && m.stream == r.Stream && r.Seq < m.next {
		return c.head, false, false
	}
	first := c.head.Offset + 1
	c.head.Offset += uint64(r.Messages)
	c.frames = append(c.frames, frame{adapter.KeptFrame{At: c.head, Frame: r.Frame}, first, now})
	if r.Publisher != "" {
		c.marks[r.Publisher] = mark{r.Stream, r.Seq + uint64(r.Messages), c.head.Offset}
	}
	c.trim(r.Keep, now)
	c.age = r.Keep.Age
	c.expires = now.Add(r.Keep.Age + noteAge)
	if due := c.frames[0].time.Add(c.age + 1); due.Before(c.due) {
		c.due = due
		heap.Fix(&s.queue, c.at)
	}
	early = s.sweepAt.IsZero() || s.queue[0].due.Before(s.sweepAt)
	if early {
		s.sweepAt = s.queue[0].due
	}
	return c.head, true, early
}

// remove forgets a channel.
func (s *Store) remove(c *channel) {
	heap.Remove(&s.queue, c.at)
	delete(s.channels, c.name)
	s.floor = max(s.floor, c.head.Epoch+1)
}

// trim drops the frames outside of keep.
func (c *channel) trim(keep adapter.Retention, now time.Time) {
	n := c.firstKept(keep, now)
	if n == 0 {
		return
	}
	c.drop(n)
	for publisher, m := range c.marks { // the publisher has sent nothing since, so it no longer retries
		if m.offset+uint64(keep.Messages) < c.head.Offset {
			delete(c.marks, publisher)
		}
	}
}

// drop drops the first n frames.
func (c *channel) drop(n int) {
	clear(c.frames[:n])
	if c.frames = c.frames[n:]; len(c.frames) == 0 {
		c.frames = nil
	}
}

// firstKept returns the index of the first frame inside of keep.
func (c *channel) firstKept(keep adapter.Retention, now time.Time) int {
	n := 0
	for n < len(c.frames) && (c.frames[n].At.Offset+uint64(keep.Messages) <= c.head.Offset || now.Sub(c.frames[n].time) > keep.Age) {
		n++
	}
	return n
}

// Sweep drops what has expired, and returns when to call it again; zero: not
// before Append asks for it. A frame is dropped no later than an eighth of its
// age, or sweepPause, after it has expired, and the position of a channel a day
// after its last frame.
func (s *Store) Sweep(now time.Time) (next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range sweepAtOnce {
		if len(s.queue) == 0 || s.queue[0].due.After(now) {
			break
		}
		c := s.queue[0]
		if c.expires.Before(now) {
			s.remove(c)
			continue
		}
		n := 0
		for n < len(c.frames) && now.Sub(c.frames[n].time) > c.age {
			n++
		}
		c.drop(n)
		// A busy channel is not swept for each frame.
		c.due = now.Add(max(c.age/8, sweepPause))
		if len(c.frames) == 0 {
			c.due = c.expires.Add(1)
		} else if due := c.frames[0].time.Add(c.age + 1); due.After(c.due) {
			c.due = due
		}
		heap.Fix(&s.queue, 0)
	}
	s.sweepAt = time.Time{}
	if len(s.queue) > 0 {
		s.sweepAt = s.queue[0].due
		if soon := now.Add(sweepPause); s.sweepAt.Before(soon) {
			s.sweepAt = soon
		}
	}
	return s.sweepAt
}

// A queue is a heap of channels, by due.
type queue []*channel

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].at, q[j].at = i, j
}

func (q *queue) Push(c any) {
	c.(*channel).at = len(*q)
	*q = append(*q, c.(*channel))
}

func (q *queue) Pop() any {
	last := len(*q) - 1
	c := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return c
}

// Read returns a page of the frames after since: until it has limit messages,
// or a number of bytes if bytes is not 0.
func (s *Store) Read(name string, since adapter.Position, limit, bytes int, keep adapter.Retention, now time.Time) adapter.Page {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.channels[name]
	if c == nil || c.expires.Before(now) {
		return adapter.Page{First: 1}
	}
	kept := c.frames[c.firstKept(keep, now):]
	p := adapter.Page{Head: c.head, Before: slices.Clone(c.before), First: c.head.Offset + 1}
	if len(kept) > 0 {
		p.First = kept[0].first
		// A frame may begin outside of keep.
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
		size += len(f.Frame)
	}
	for _, f := range kept {
		f.Age = max(0, now.Sub(f.time))
		p.Frames = append(p.Frames, f.KeptFrame)
	}
	return p
}

// branch returns the offset up to which since and the history agree.
func (c *channel) branch(since adapter.Position) uint64 {
	for _, past := range c.before {
		if past.Epoch == since.Epoch {
			return min(since.Offset, past.Last)
		}
	}
	if since.Epoch == c.head.Epoch {
		return since.Offset
	}
	for _, f := range c.frames { // it is not known: return what came in later epochs
		if f.At.Epoch > since.Epoch {
			return f.first - 1
		}
	}
	return c.head.Offset
}

// Lose makes all histories lose a number of their latest frames, and begin a
// new epoch, as when a server takes over that lacks them. Whole means that the
// server claims to have all frames.
func (s *Store) Lose(frames int, whole bool, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.channels {
		last := c.head.Offset
		if n := min(frames, len(c.frames)); n > 0 {
			last = c.frames[len(c.frames)-n].first - 1
			c.frames = slices.Delete(c.frames, len(c.frames)-n, len(c.frames))
		}
		c.before = append(c.before, adapter.PastEpoch{Epoch: c.head.Epoch, Last: last, Whole: whole})
		if len(c.before) > maxPast {
			c.before = slices.Delete(c.before, 0, 1)
		}
		c.head = adapter.Position{Epoch: max(c.head.Epoch+1, uint64(now.UnixMilli())), Offset: last}
		s.floor = max(s.floor, c.head.Epoch+1)
		for publisher, m := range c.marks {
			if m.offset > last {
				delete(c.marks, publisher)
			}
		}
	}
}

// Clear deletes all histories, as when a server restarts empty.
func (s *Store) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.channels {
		s.floor = max(s.floor, c.head.Epoch+1)
	}
	clear(s.channels)
	s.queue = nil
}
