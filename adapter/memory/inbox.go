package memory

import (
	"sync"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

// An inbox is the queue between the bus and one receiver. It corresponds to a
// connection and its reader. Adding an event never waits; one goroutine,
// deliver, calls the receiver in the order of the events.
type inbox struct {
	wake chan struct{} // capacity 1; wakes the reader

	// mu guards everything below, and the over field of subscriptions.
	mu       sync.Mutex
	events   []event // those before head are zero
	head     int
	sleeping bool
	closed   bool
	current  *subscription // the receiver is in a call for it
	finished chan struct{} // if not nil, closed when that call has returned
}

// An event is one call of the receiver.
type event struct {
	kind  kind
	sub   *subscription
	frame []byte
	at    adapter.Position // of a kept frame; zero: it is not kept
	due   time.Time        // not delivered before; zero: at once
}

type kind uint8

const (
	received kind = iota
	interrupted
	restored
	moving
)

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

// keepCap is the capacity above which a queue that has become empty gives its
// memory back.
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

// next marks the running call as returned, takes the next event whose
// subscription is not over, and marks its call as running. If there is none it
// returns an event without a subscription, and how long to sleep, 0 meaning
// until something comes. ok is false if the inbox is closed.
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

// sleep waits to be woken, for at most d unless d is 0.
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

// endSubscription ends the delivery of events of s. If the receiver is in a
// call for s, it returns a channel that is closed when that call has returned.
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

// loseLate drops events that are queued but not due yet: their frames were
// still on the way when the link broke.
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

// close drops all queued events and ends deliver.
func (q *inbox) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.events, q.head = nil, 0
	q.wakeLocked()
}
