package replay

import (
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/history"
)

// maxPages bounds the pages that a room remembers for others that come from
// behind, while it is wide.
const maxPages = 16

// A Store has parts of a room's history, for members that come from behind. The
// zero Store is empty.
type Store[E Item] struct {
	Recent[E]
	Readings[E]
	pages []*Page[E] // read lately

	// wide is set if the history is being read, or was until wideAt. The room then
	// holds more than its window, so that members find what has come meanwhile.
	wide bool
	// expires: Expire is called from time to time.
	expires bool
	wideAt  int64
}

// Messages expire a chunk at a time. Chunks that would expire soon after one
// another expire together: Expire asks to be called again after expirePause at
// the earliest, or after one expireShare-th of the age that messages may reach,
// if that is longer.
const (
	expirePause = time.Second
	expireShare = 8
)

// Forget drops all messages. Requests stay.
func (s *Store[E]) Forget() { s.Recent, s.pages = Recent[E]{}, nil }

// Wide reports whether the room holds more than its window.
func (s *Store[E]) Wide() bool { return s.wide }

// Widen makes the room hold more than its window for a while, because its
// history is read. It reports whether that begins with this call. If so, the
// caller calls Narrow from time to time until it returns true.
func (s *Store[E]) Widen(now int64) (begins bool) {
	begins = !s.wide
	s.wide, s.wideAt = true, now
	return begins
}

// Narrow ends what Widen began, if it has not been needed for long enough, and
// reports whether it did. Busy says that the history is being read for the log.
func (s *Store[E]) Narrow(now int64, busy bool, w Window) bool {
	if busy || s.Waiting() {
		s.wideAt = now
	}
	if time.Duration(now-s.wideAt) < WideTime {
		return false
	}
	s.wide, s.pages = false, nil
	s.cut(w, false)
	return true
}

// BeginExpiry reports whether the caller has to begin to call Expire from time
// to time: there are messages, and that has not begun.
func (s *Store[E]) BeginExpiry() bool {
	begins := !s.expires && !s.Empty()
	s.expires = s.expires || begins
	return begins
}

// Expire drops messages that are older than the history keeps them, and returns
// when to call it again, or that no messages are left. A message may be dropped
// late, by up to an eighth of that age or a second.
func (s *Store[E]) Expire(now int64, age time.Duration) (next int64, empty bool) {
	first, empty := s.expire(now - age.Nanoseconds())
	if s.expires = !empty; empty {
		return 0, true
	}
	soonest := now + max(expirePause, age/expireShare).Nanoseconds()
	return max(first+age.Nanoseconds()+1, soonest), false
}

// Add appends messages that went into the log, and were kept at a time.
func (s *Store[E]) Add(items []E, kept int64, w Window) { s.add(items, kept, w, s.wide) }

// Remember keeps a page for members that come later. Pos is the position of the
// log.
func (s *Store[E]) Remember(p *Page[E], pos adapter.Position, w Window) {
	s.extend(p, pos, w, s.wide)
	if s.wide && p.info.Head.Epoch == pos.Epoch {
		if len(s.pages) == maxPages {
			s.pages = append(s.pages[:0:0], s.pages[1:]...)
		}
		s.pages = append(s.pages, p)
	}
}

// Has reports whether the next part of a replay is here.
func (s *Store[E]) Has(r *Replay[E], pos adapter.Position, keep adapter.Retention, now int64) bool {
	_, ok := s.next(r.at, pos, r.isNewcomer(), keep, now)
	return ok || s.page(r.at, pos, keep, now) != nil
}

// page returns a page that was read lately and has what comes after a position.
func (s *Store[E]) page(at, pos adapter.Position, keep adapter.Retention, now int64) *Page[E] {
	for _, p := range s.pages {
		if !p.covers(at) || !at.Before(p.end) || p.info.Head.Epoch != pos.Epoch || !at.IsZero() && !history.Has(&p.info, at) {
			continue
		}
		i := p.after(at)
		if i < len(p.items) && p.items[i].Place().Offset+uint64(keep.Messages) > pos.Offset && p.times[i] >= now-keep.Age.Nanoseconds() {
			s.wideAt = now // it is in use
			return p
		}
	}
	return nil
}
