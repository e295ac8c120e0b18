package partition

import (
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

// receive hands a frame to the hub, unless it is a copy that has come before.
func (r *route) receive(frame []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return
	}
	if from, number, inner, ok := openCopy(frame); ok {
		if !r.seen.first(from, number, time.Now()) {
			return
		}
		frame = inner
	}
	r.owner.receiver.Receive(r.name, frame)
}

// receiveKept hands a frame of the room's history to the hub, unless it was
// copied from the history of another partition.
func (r *route) receiveKept(f adapter.KeptFrame) {
	k, ok := openKept(f.Frame)
	if ok && k.kind != shifted {
		return
	}
	f.At.Epoch += k.shift
	f.Frame = k.frame
	r.mu.Lock()
	defer r.mu.Unlock()
	switch a := r.owner; {
	case r.over:
	case a.keeper != nil:
		a.keeper.ReceiveKept(r.name, f)
	default:
		a.receiver.Receive(r.name, f.Frame)
	}
}

// copies are the numbers of copies that have come, by publisher.
type copies struct {
	last map[uint64]mark
}

type mark struct {
	number uint64
	at     time.Time
}

const (
	// copyMemory is how long a silent publisher is remembered, once there are more
	// than manyCopies publishers. The second copy of a frame is recognised if it
	// comes within that time.
	copyMemory = time.Minute
	manyCopies = 256
)

// first reports whether a copy is the first of its frame to arrive. The copies
// of one publisher have growing numbers on each partition.
func (c *copies) first(from, number uint64, now time.Time) bool {
	m, known := c.last[from]
	if known && number <= m.number {
		return false
	}
	if !known && len(c.last) >= manyCopies && len(c.last)&(len(c.last)-1) == 0 {
		for publisher, m := range c.last {
			if now.Sub(m.at) > copyMemory {
				delete(c.last, publisher)
			}
		}
	}
	if c.last == nil {
		c.last = make(map[uint64]mark)
	}
	c.last[from] = mark{number, now}
	return true
}
