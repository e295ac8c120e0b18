package redispubsub

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/wire"
)

// A sub is a channel that the receiver wants: where its home is and whether the
// subscription stands there. Who subscribes again after Unsubscribe gets a new
// sub.
type sub struct {
	engine  *Engine
	channel string
	since   int64 // when it was asked for; see ticks
	slot    uint16

	mistrusted atomic.Bool // it is about to be confirmed again

	shown   atomic.Pointer[standing] // where it stands, for those who don't wait
	placing sync.Mutex               // one place or drop at a time; taken before mu and any other

	mu          sync.Mutex // guards all below; held while the receiver is called
	wanted      bool
	on          bool   // confirmed by home
	interrupted bool   // the receiver has been told
	inOrder     bool   // it was told Moving, and nothing since
	confirms    uint32 // number of times home, or another, has confirmed it
	home        *link  // nil: not known
	movedAt     int64  // when a MOVED was followed; see ticks, and 0 for never
	changed     chan struct{}
	failed      *failure           // refused for good
	announced   *wire.Announcement // of the frame that comes next
}

// A standing is where a sub stands, as it was at one time.
type standing struct {
	home     *link
	on       bool
	confirms uint32
}

// show lets others see where the sub stands. s.mu is held.
func (s *sub) show() { s.shown.Store(&standing{s.home, s.on, s.confirms}) }

// A failure is why something did not succeed.
type failure struct{ err error }

// await waits until the subscription stands and has been confirmed more than so
// many times.
func (s *sub) await(ctx context.Context, confirms uint32) error {
	for {
		s.mu.Lock()
		switch {
		case s.failed != nil:
			defer s.mu.Unlock()
			return s.failed.err
		case s.on && s.confirms > confirms:
			s.mu.Unlock()
			return nil
		case !s.wanted:
			s.mu.Unlock()
			return s.engine.errClosed()
		}
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.engine.ctx.Done():
			return s.engine.errClosed()
		}
	}
}

// tell wakes those who wait. s.mu is held.
func (s *sub) tell() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// move makes l the home, if the sub is wanted, and returns the one before. What
// still comes from that one is dropped from here on.
func (s *sub) move(l *link) (old *link, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.wanted {
		return nil, false
	}
	if s.on {
		s.lose(false)
	}
	old, s.home = s.home, l
	s.show()
	return old, true
}

// end makes the sub unwanted and returns its home.
func (s *sub) end() *link {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.home
	s.wanted, s.on, s.home = false, false, nil
	s.show()
	s.tell()
	return l
}

// deliver hands a frame to the receiver, if it comes from the sub's home and
// the subscription stands.
func (s *sub) deliver(from *link, frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.on || s.home != from {
		return
	}
	at, frame, more := s.position(frame)
	if more {
		return
	}
	if h := s.engine.keeper; h != nil && !at.IsZero() {
		h.ReceiveKept(s.channel, adapter.KeptFrame{At: at, Frame: frame})
		return
	}
	s.engine.receiver.Receive(s.channel, frame)
}

// position tells the position of a frame, zero if it is not kept, or that there
// is more to come: the payload only announces the next. s.mu is held.
func (s *sub) position(payload []byte) (at adapter.Position, frame []byte, more bool) {
	if next := s.announced; next != nil {
		s.announced = nil
		if next.Is(payload) {
			return adapter.Position{Epoch: next.Epoch, Offset: next.Offset}, payload, false
		}
	}
	if epoch, offset, kept, ok := wire.DecodeKept(payload); ok {
		return adapter.Position{Epoch: epoch, Offset: offset}, kept, false
	}
	if a, ok := wire.DecodeAnnouncement(payload); ok {
		next := a // which lies on the heap, and only then
		s.announced = &next
		return at, payload, true
	}
	return at, payload, false
}

// confirm notes that the home has confirmed the subscription.
func (s *sub) confirm(by *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.wanted || s.home != by {
		return
	}
	s.on, s.announced = true, nil
	s.confirms++
	s.show()
	if s.interrupted {
		s.interrupted, s.inOrder = false, false
		s.engine.receiver.Restored(s.channel)
	}
	s.tell()
}

// lost notes that the subscription does not stand any more at a link. It was in
// good order if the server itself has said so: then we have got what it took. If
// the home, old or new, breaks after that, others may know less than it took.
func (s *sub) lost(at *link, inOrder bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.home == at {
		s.lose(inOrder)
	}
}

// lose is lost with s.mu held.
func (s *sub) lose(inOrder bool) {
	switch {
	case s.on:
	case s.interrupted && s.inOrder && !inOrder: // the move goes wrong
	default:
		return
	}
	s.on, s.interrupted = false, true
	s.show()
	if h := s.engine.keeper; h != nil && inOrder {
		s.inOrder = true
		h.Moving(s.channel)
	} else {
		s.inOrder = false
		s.engine.receiver.Interrupted(s.channel)
	}
}

// refuse ends the sub with an error that trying again does not cure.
func (s *sub) refuse(by *link, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wanted && s.home == by {
		s.failed = &failure{err}
		s.tell()
	}
}

// overdue reports whether the subscription should stand and does not: it was
// lost, or has been asked for longer ago than that.
func (s *sub) overdue(after time.Duration) bool {
	_, on, confirms := s.state()
	return !on && (confirms > 0 || time.Duration(ticks()-s.since) > after)
}

// state returns the home and the number of confirmations, as they were last. It
// does not wait for the receiver. There is none of a channel that is not
// subscribed.
func (s *sub) state() (home *link, on bool, confirms uint32) {
	if s == nil {
		return nil, false, 0
	}
	if now := s.shown.Load(); now != nil {
		return now.home, now.on, now.confirms
	}
	return nil, false, 0
}
