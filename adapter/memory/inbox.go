package memory

import (
	"sync"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

// An inbox is the queue between the bus and one receiver: what a connection
// and its reader are elsewhere. Adding never waits; one goroutine, in deliver,
// hands out in the order of adding.
type inbox struct {
	wake chan struct{} // holds one; for the reader if it sleeps

	// mu guards everything below, and over of the adapter's subscriptions.
	mu       sync.Mutex
	events   []event // from head; those before are zero
	head     int
	sleeping bool
	closed   bool
	current  *subscription // whose event the receiver is being given
	finished chan struct{} // if not nil, closed when that call has returned
}

// An event is one call of the receiver.
type event struct {
	kind  kind
	sub   *subscription
	frame []byte
	at    adapter.Position // not zero: the frame is kept
	due   time.Time        // not before; zero is at once
}

type kind uint8

const (
	received kind = iota
	interrupted
	restored
	moving
)

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

// keepCap is the capacity of a queue above which its memory is given back when
// it has run empty.
const keepCap = 1024

// put adds an event at the end.
func (q *inbox) put(e event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || e.sub.over {
		return
	}
	if q.head > 0 && len(q.events) == cap(q.events) && q.head >= len(q.events)/2 {
		n := copy(q.events, q.events[q.head:])
		clear(q.events[n:])
		q.events, q.head = q.events[:n], 0
	}
	q.events = append(q.events, e)
	q.wakeLocked()
}

func (q *inbox) wakeLocked() {
	if !q.sleeping {
		return
	}
	q.sleeping = false
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// deliver calls r with one event after the other until the inbox is closed.
func (q *inbox) deliver(r adapter.Receiver) {
	keeper, _ := r.(adapter.HistoryReceiver)
	for {
		e, wait, ok := q.next()
		switch {
		case !ok:
			return
		case e.sub == nil:
			q.sleep(wait)
		case e.kind == moving && keeper != nil:
			keeper.Moving(e.sub.channel)
		case e.kind == interrupted, e.kind == moving:
			r.Interrupted(e.sub.channel)
		case e.kind == restored:
			r.Restored(e.sub.channel)
		case keeper != nil && !e.at.IsZero():
			keeper.ReceiveKept(e.sub.channel, adapter.KeptFrame{At: e.at, Frame: e.frame})
		default:
			r.Receive(e.sub.channel, e.frame)
		}
	}
}

// next ends the call that was running, takes the next event whose subscription
// is not over, and declares its call running. Without one it returns no event
// and how long to sleep, 0 being until something comes. It is not ok when the
// inbox is closed.
func (q *inbox) next() (e event, wait time.Duration, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.current = nil
	if q.finished != nil {
		close(q.finished)
		q.finished = nil
	}
	for !q.closed && q.head < len(q.events) {
		e := q.events[q.head]
		if !e.sub.over && !e.due.IsZero() {
			if wait := time.Until(e.due); wait > 0 {
				q.sleeping = true
				return event{}, wait, true
			}
		}
		q.events[q.head] = event{}
		q.head++
		if !e.sub.over {
			q.current = e.sub
			return e, 0, true
		}
	}
	q.events, q.head = q.events[:0], 0
	if cap(q.events) > keepCap {
		q.events = nil
	}
	q.sleeping = true
	return event{}, 0, !q.closed
}

// sleep waits to be woken, for d at most if d is not 0.
func (q *inbox) sleep(d time.Duration) {
	if d == 0 {
		<-q.wake
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-q.wake:
	case <-t.C:
	}
}

// endSubscription sees to it that nothing more of s is handed out. If the
// receiver is in a call of it just now, it returns a channel that is closed
// when that call has returned.
func (q *inbox) endSubscription(s *subscription) <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	s.over = true
	if q.current != s {
		return nil
	}
	if q.finished == nil {
		q.finished = make(chan struct{})
	}
	return q.finished
}

// loseLate drops what is queued but not due yet: it was still on the way when
// the link broke.
func (q *inbox) loseLate() {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	for i := q.head; i < len(q.events); i++ {
		if q.events[i].due.After(now) {
			clear(q.events[i:])
			q.events = q.events[:i]
			return
		}
	}
}

// close drops what is queued and ends deliver.
func (q *inbox) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.events, q.head = nil, 0
	q.wakeLocked()
}
