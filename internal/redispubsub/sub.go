package redispubsub

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/clock"
	"github.com/fanoutgo/fanout/internal/notify"
	"github.com/fanoutgo/fanout/internal/wire"
)

// A sub is a channel that the receiver wants: where its home is, and whether
// the home has confirmed the subscription. Subscribing again after Unsubscribe
// makes a new sub.
type sub struct {
	engine  *Engine
	channel string
	since   int64 // when it was asked for; see clock
	slot    uint16
	spread  bool // it may be read from replicas; see readers

	resubscribing atomic.Bool // resubscribeSoon is under way

	home atomic.Pointer[link] // nil: not known; written under mu, and read without it by state
	// stands is twice the number of times that a home has confirmed the
	// subscription, and one more while home has: see on.
	stands atomic.Uint32

	placing sync.Mutex // one place or drop at a time; taken before mu and any other

	mu          sync.Mutex // guards all below; held while the receiver is called
	wanted      bool
	interrupted bool  // the receiver was told Interrupted or Moving
	inOrder     bool  // the last of these was Moving
	movedAt     int64 // when a MOVED was followed; see clock; 0: never
	changed     notify.Notifier
	failed      *failure           // refused for good
	announced   *wire.Announcement // announces the next frame
	last        *adapter.Position  // of the last kept frame; nil: there was none
}

// on reports whether home has confirmed the subscription, and confirms returns
// the number of times that a home has.
func (s *sub) on() bool         { return s.stands.Load()&1 != 0 }
func (s *sub) confirms() uint32 { return s.stands.Load() >> 1 }

// off notes that home has not confirmed the subscription. The caller holds
// s.mu.
func (s *sub) off() { s.stands.Store(s.stands.Load() &^ 1) }

// A failure is why something did not succeed.
type failure struct{ err error }

// await waits until the subscription is confirmed, and has been confirmed more
// times than confirms.
func (s *sub) await(ctx context.Context, confirms uint32) error {
	for {
		s.mu.Lock()
		switch {
		case s.failed != nil:
			defer s.mu.Unlock()
			return s.failed.err
		case s.on() && s.confirms() > confirms:
			s.mu.Unlock()
			return nil
		case !s.wanted:
			s.mu.Unlock()
			return s.engine.errClosed()
		}
		changed := s.changed.Wait()
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

// move makes l the home, if the sub is wanted, and returns the previous home.
// Whatever arrives from that home later is dropped.
func (s *sub) move(l *link) (old *link, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.wanted {
		return nil, false
	}
	if s.on() {
		s.lose(false)
	}
	return s.home.Swap(l), true
}

// end makes the sub unwanted and returns its home.
func (s *sub) end() *link {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = false
	s.off() // before home changes: see state
	l := s.home.Swap(nil)
	s.changed.Notify()
	return l
}

// isWanted reports whether the channel has not been unsubscribed.
func (s *sub) isWanted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wanted
}

// deliver passes a frame to the receiver, if it comes from the sub's home and
// the subscription is confirmed.
func (s *sub) deliver(from *link, frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.on() || s.home.Load() != from {
		return
	}
	at, frame, drop := s.position(frame)
	if drop {
		return
	}
	if h := s.engine.keeper; h != nil && !at.IsZero() {
		if s.last == nil {
			s.last = new(adapter.Position)
		}
		*s.last = at
		h.ReceiveKept(s.channel, adapter.KeptFrame{At: at, Frame: frame})
		return
	}
	s.engine.receiver.Receive(s.channel, frame)
}

// position splits a payload into a frame and its position in the history, which
// is zero if the frame is not kept. drop means that the receiver does not get
// it: it only announces the position of the next frame, or a hub has sent it
// late, after later frames. The caller holds s.mu.
func (s *sub) position(payload []byte) (at adapter.Position, frame []byte, drop bool) {
	if next := s.announced; next != nil {
		s.announced = nil
		if next.Is(payload) {
			return adapter.Position{Epoch: next.Epoch, Offset: next.Offset}, payload, false
		}
	}
	if epoch, offset, kept, ok := wire.DecodeKept(payload); ok {
		return adapter.Position{Epoch: epoch, Offset: offset}, kept, false
	}
	if epoch, offset, kept, ok := wire.DecodeLate(payload); ok {
		at = adapter.Position{Epoch: epoch, Offset: offset}
		return at, kept, s.last != nil && !s.last.Before(at)
	}
	if a, ok := wire.DecodeAnnouncement(payload); ok {
		next := a // a copy on the heap, made only here
		s.announced = &next
		return at, payload, true
	}
	return at, payload, false
}

// confirm notes that the home has confirmed the subscription in a session. It
// does nothing if the link has lost the subscription since: then lost may have
// been called already.
func (s *sub) confirm(by *link, ses *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.wanted || s.home.Load() != by || !by.stands(ses, s) {
		return
	}
	s.announced = nil
	s.stands.Store((s.confirms()+1)<<1 | 1)
	if s.interrupted {
		s.interrupted, s.inOrder = false, false
		s.engine.receiver.Restored(s.channel)
	}
	s.changed.Notify()
}

// lost notes that a link no longer has the subscription. inOrder means that the
// server has said so itself: then we have received everything that it accepted.
// If the home, old or new, breaks after that, we may have missed some of what
// it accepted.
func (s *sub) lost(at *link, inOrder bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.home.Load() == at {
		s.lose(inOrder)
	}
}

// lose is lost for callers that hold s.mu.
func (s *sub) lose(inOrder bool) {
	switch {
	case s.on():
	case s.interrupted && s.inOrder && !inOrder: // the move has failed
	default:
		return
	}
	s.off()
	s.interrupted = true
	if h := s.engine.keeper; h != nil && inOrder {
		s.inOrder = true
		h.Moving(s.channel)
	} else {
		s.inOrder = false
		s.engine.receiver.Interrupted(s.channel)
	}
}

// refuse fails the sub with an error that trying again does not cure.
func (s *sub) refuse(by *link, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wanted && s.home.Load() == by {
		s.failed = &failure{err}
		s.changed.Notify()
	}
}

// overdue reports whether the subscription should be confirmed and is not: it
// was lost, or Subscribe was called longer than after ago.
func (s *sub) overdue(after time.Duration) bool {
	_, on, confirms := s.state()
	return !on && (confirms > 0 || clock.Since(s.since) > after)
}

// state returns the home, whether it has confirmed the subscription, and the
// number of confirmations, as they were at one time. It does not wait for the
// receiver. A nil sub has no home.
//
// A home changes only while it has not confirmed the subscription, so what was
// read belongs together if stands is the same before and after.
func (s *sub) state() (home *link, on bool, confirms uint32) {
	if s == nil {
		return nil, false, 0
	}
	for {
		stands := s.stands.Load()
		home = s.home.Load()
		if s.stands.Load() == stands {
			return home, stands&1 != 0, stands >> 1
		}
	}
}
