package fanout

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sort"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/history"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/roomlog"
)

// A replay is a member on its way from a place in the room's history to the log:
// it resumes, or it fell out of the window. It goes a part at a time, and holds
// no more than one, so a member that stops reading costs a page at most. A part
// comes from the room's tail, from a page that was read for somebody else, or
// from a new reading.
//
// A member that waits for a part waits alone. It has met the log when a part
// ends where the log stands: its cursor is put there in the same step.
//
// Until the membership is joined roomState.mu guards it, then Member.walk.
type replay struct {
	at       adapter.Position // the backend's; where the member is when it has read entries
	gap      roomlog.Gap      // before entries
	entries  []item.Entry     // shared with others: read only
	met      bool             // the log goes on after entries
	newcomer bool             // it asked for all that is kept: nothing is missing before base
	base     adapter.Position // where the log stood at the cursor; what is after it the cursor passes over
	counted  int              // messages after base that it has got or was told of

	page    *page // that was read for it
	again   bool  // it was ahead of the history, which was read again
	retried bool  // the history could not be read, and was tried again
	waits   int   // times that it waited for the log
}

// A step is what came of asking for the next part.
type step uint8

const (
	stepped step = iota // the replay has a part, or has met the log
	toRead              // the history has to be read first
	behind              // the log has to catch up first
)

// maxWaits bounds how often a member waits for a log that is behind it, or ahead
// of a history that was lost. Each time the log reads all that the history has,
// so once is enough, unless the history goes back meanwhile.
const maxWaits = 3

// empty reports whether the part has been read.
func (r *replay) empty() bool { return r.gap.IsZero() && len(r.entries) == 0 }

// give makes p the part of a replay.
func (r *replay) give(p part) {
	n := sort.Search(len(p.entries), func(i int) bool { return r.base.Before(p.entries[i].At) })
	r.counted += len(p.entries) - n
	if gone := p.gap.Missed; !r.at.Before(r.base) {
		r.counted += gone
	} else if beyond := r.at.Offset + uint64(gone); beyond > r.base.Offset {
		r.counted += min(gone, int(beyond-r.base.Offset))
	}
	r.gap, r.entries, r.at = p.gap, p.entries, p.end
}

// advance gives a replay its next part, or says what is needed for it. rs.mu is
// held.
func (k *retained) advance(r *replay) (step, error) {
	switch {
	case !k.known:
		return behind, nil
	case k.blind: // what is between the log and the next frame is in the history, if that can be read by now
		if k.err != nil && r.retried {
			return 0, k.err
		}
		r.retried = true
		return behind, nil
	}
	if p, ok := k.tail.next(r.at, k.pos, k.keep); ok {
		r.page = nil
		if r.met = p.end == k.pos; !r.met {
			k.wideAt = ticks() // others may follow
		}
		r.give(p)
		return stepped, nil
	}
	p := r.page
	r.page = nil
	if p == nil || !p.covers(r.at) {
		if p = k.recent(r.at); p == nil {
			return toRead, nil
		}
	}
	if p.info.Head.Before(r.at) {
		if !r.again { // it may have been said after the reading had begun
			r.again = true
			return toRead, nil
		}
		if p.info.Head.Epoch == r.at.Epoch {
			return 0, fmt.Errorf("%w: %v is ahead of the room's history, which is at %v",
				ErrInvalidPosition, public(r.at, k.mark), public(p.info.Head, k.mark))
		}
	} else if k.pos.Before(r.at) && history.Has(&p.info, r.at) && r.waits < maxWaits {
		// We lag behind the hub that it comes from. What we miss until then is not
		// missing for it.
		r.waits++
		return behind, nil
	}
	next := p.next(r.at, r.newcomer && (r.base.IsZero() || r.at.Before(r.base)))
	n := sort.Search(len(next.entries), func(i int) bool { return k.pos.Before(next.entries[i].At) })
	if n < len(next.entries) || !next.end.Before(k.pos) {
		next.entries, next.end, r.met = next.entries[:n:n], k.pos, true
		if n == 0 { // what is missing after pos is still on its way to the log
			next.gap.Missed = min(next.gap.Missed, int(min(k.pos.Offset-min(r.at.Offset, k.pos.Offset), math.MaxInt)))
		}
	}
	if !r.met && next.end == r.at && len(next.entries) == 0 && next.gap.IsZero() {
		// The history ends before the log: it was lost, and the log has not
		// noticed yet, because it is interrupted.
		if r.waits < maxWaits {
			r.waits++
			return behind, nil
		}
		next.gap, next.end, r.met = roomlog.Gap{Unknown: true}, k.pos, true
	}
	r.give(next)
	return stepped, nil
}

// maxPages bounds the pages that a room remembers for others that come from
// behind, while its tail is wide.
const maxPages = 16

// recent returns a page that was read lately and has what comes after a
// position. roomState.mu is held.
func (k *retained) recent(at adapter.Position) *page {
	for _, p := range k.pages {
		if !p.covers(at) || !at.Before(p.end) || p.info.Head.Epoch != k.pos.Epoch || !at.IsZero() && !history.Has(&p.info, at) {
			continue
		}
		i := sort.Search(len(p.entries), func(i int) bool { return at.Before(p.entries[i].At) })
		if i < len(p.entries) && p.entries[i].At.Offset+uint64(k.keep.Messages) > k.pos.Offset && p.times[i] >= ticks()-k.keep.Age.Nanoseconds() {
			k.wideAt = ticks() // it is in use
			return p
		}
	}
	return nil
}

// holds reports whether what comes after a position is here. roomState.mu is
// held.
func (k *retained) holds(at adapter.Position) bool {
	_, ok := k.tail.next(at, k.pos, k.keep)
	return ok || k.recent(at) != nil
}

// start puts a member that resumes into the room, when it has its first part.
// rs.mu is held.
func (rs *roomState) start(ms *membership, r *replay, since adapter.Position) {
	rs.open(ms)
	p, k := ms.place, rs.kept
	r.base = k.pos
	r.counted = 0
	if !k.pos.Before(since) {
		p.after = public(since, k.mark)
		p.last = p.after
	} // else the history has gone back behind it, and what comes is new
	if r.met && r.empty() {
		p.replay = nil
		return
	}
	p.behind.Store(follows)
}

// refill returns the replay of a member that fell out of the window.
func (ms *membership) refill() *replay {
	at := adapter.Position{Epoch: ms.place.last.Epoch >> markBits, Offset: ms.place.last.Offset}
	return &replay{at: at, base: at}
}

// advance gives the member its next part, if it is there. It is not ok if that
// has to be waited for: see bring. Member.walk is held.
func (ms *membership) advance() (ok bool) {
	rs := ms.room
	rs.mu.Lock()
	defer rs.mu.Unlock()
	s, err := rs.tryAdvance(ms)
	return s == stepped && err == nil
}

// tryAdvance gives the member its next part, and puts its cursor where the part
// meets the log. Member.walk and rs.mu are held.
func (rs *roomState) tryAdvance(ms *membership) (step, error) {
	r := ms.place.replay
	s, err := rs.kept.advance(r)
	if err == nil && s == stepped && r.met {
		rs.meet(ms, r)
	}
	return s, err
}

// meet puts the cursor of ms at the end of the log. What it passes over there,
// and the history has not given, is missing: what had no position, and what was
// missing before. Member.walk and rs.mu are held.
func (rs *roomState) meet(ms *membership, r *replay) {
	passed := ms.cursor.ToEnd(ms.opened)
	r.gap.Missed += min(max(0, passed.Missed-r.counted), math.MaxInt-r.gap.Missed)
	r.gap.Unknown = r.gap.Unknown || passed.Unknown
	r.met = true
}

// bring waits until the member has its next part, while it receives from its
// other rooms.
func (rs *roomState) bring(ms *membership) {
	ctx, cancel := context.WithCancelCause(rs.hub.ctx)
	defer cancel(nil)
	rs.mu.Lock()
	ms.waiting().giveUp = cancel // when the member leaves
	rs.mu.Unlock()
	err := rs.awaitPart(ctx, ms)
	if errors.Is(err, ErrClosed) {
		<-ctx.Done() // the hub is about to end the member
	}
	if err != nil && ctx.Err() == nil && !ms.left.Load() && ms.member.endError() == nil {
		rs.abandon(ms)
		rs.hub.historyUnreadable(rs.name, err)
	}
	rs.mu.Lock()
	ms.place.waits = nil
	rs.mu.Unlock()
	ms.member.enqueue(ms) // from here on it may wait for another part
}

// awaitPart returns when the member has its next part or has left, or with an
// error if the history cannot be read.
func (rs *roomState) awaitPart(ctx context.Context, ms *membership) error {
	for {
		ms.member.walk.Lock()
		rs.mu.Lock()
		r := ms.place.replay
		if ms.left.Load() || r == nil {
			rs.mu.Unlock()
			ms.member.walk.Unlock()
			return nil
		}
		s, err := rs.tryAdvance(ms)
		var changed <-chan struct{}
		if err == nil && s == behind {
			changed = rs.awaitLog()
		}
		rs.mu.Unlock()
		ms.member.walk.Unlock()
		switch {
		case err != nil || s == stepped:
			return err
		case s == toRead:
			err = rs.fetch(ctx, ms, r)
		default:
			select {
			case <-changed:
			case <-ctx.Done():
			case <-ms.member.Done():
			}
		}
		if err != nil || ctx.Err() != nil || ms.member.endError() != nil {
			return err
		}
	}
}

// awaitLog has the log catch up, and returns what is closed when that has
// changed. rs.mu is held.
func (rs *roomState) awaitLog() <-chan struct{} {
	if rs.follows() {
		rs.read()
	}
	return rs.whenChanged()
}

// abandon ends a replay whose history cannot be read: the member goes on with
// the log, and the rest is a gap.
func (rs *roomState) abandon(ms *membership) {
	ms.member.walk.Lock()
	defer ms.member.walk.Unlock()
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r := ms.place.replay
	if r == nil || ms.left.Load() {
		return
	}
	if r.at == r.base && r.counted == 0 { // what is still in the window is not missing
		ms.place.replay, ms.place.plain = nil, true
		return
	}
	r.gap, r.entries = roomlog.Gap{}, nil
	if r.at.Before(r.base) && !r.newcomer {
		if r.gap.Unknown = r.at.Epoch != r.base.Epoch; !r.gap.Unknown {
			r.gap.Missed = int(r.base.Offset - r.at.Offset)
		}
	} else if r.at.Before(r.base) {
		r.gap.Unknown = true
	}
	rs.meet(ms, r)
	r.at = rs.kept.pos
}

// fetch waits until the room's history has been read for a replay, by whomever.
func (rs *roomState) fetch(ctx context.Context, ms *membership, r *replay) error {
	rs.mu.Lock()
	if rs.kept.holds(r.at) { // it has come meanwhile
		rs.mu.Unlock()
		return nil
	}
	q := rs.kept.requests.add(r.at)
	rs.widen()
	rs.serve(firstRetry)
	moved := ms.whenMoved()
	rs.mu.Unlock()
	err := ms.wait(ctx, q.done, moved)
	rs.mu.Lock()
	defer rs.mu.Unlock()
	select {
	case <-q.done:
		r.page = q.page
		return q.err
	default:
		rs.kept.requests.drop(q)
		return err // nil: the caller sees that the member has left
	}
}

// serve has the room's history read for those who wait for it, if nobody is at
// it. rs.mu is held.
func (rs *roomState) serve(delay time.Duration) {
	if q := &rs.kept.requests; !q.reading && len(q.list) > 0 {
		q.reading = true
		rs.hub.readers.add(func(one *reading) { rs.readForMembers(one, delay) })
	}
}

// readForMembers reads one page for those who wait, and has the next one read
// when it is the room's turn again. When the backend does not answer it is asked
// again, after the delay.
func (rs *roomState) readForMembers(one *reading, delay time.Duration) {
	h, k := rs.hub, rs.kept
	rs.mu.Lock()
	since, ok := k.requests.begin(k.keep.Messages <= rs.window().Messages)
	life := k.life
	if !ok {
		k.requests.reading = false
		rs.mu.Unlock()
		return
	}
	rs.mu.Unlock()
	q := adapter.Query{Since: since, Limit: replayMessages, Bytes: replayBytes, Keep: k.keep, Time: time.Now()}
	read, err := h.readPage(one.ctx, rs.channel, q)
	if err == nil && !history.Progresses(&read, since) {
		err, delay = errNoProgress, max(delay, firstDoubt)
	}
	var p *page
	if err == nil {
		p = rs.newPage(since, &read)
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	switch {
	case h.ctx.Err() != nil:
		k.requests.fail(ErrClosed)
	case err == nil:
		if k.life == life && k.known {
			k.remember(p, rs.window())
			rs.ageTail()
		}
		k.requests.deliver(p)
		delay = firstRetry
	case errors.Is(err, ErrRefused), errors.Is(err, ErrClosed), errors.Is(err, errNoProgress) && delay >= lastRetry:
		k.requests.fail(err)
	default: // if nobody waits by then it ends there
		h.readers.again(one, delay, func(one *reading) { rs.readForMembers(one, min(2*delay, lastRetry)) })
		return
	}
	k.requests.reading = false
	rs.serve(delay)
}

// remember keeps a page for those who come later. roomState.mu is held.
func (k *retained) remember(p *page, w Window) {
	k.tail.extend(p, k.pos, w, k.wide)
	if k.wide && p.info.Head.Epoch == k.pos.Epoch {
		if len(k.pages) == maxPages {
			k.pages = append(k.pages[:0:0], k.pages[1:]...)
		}
		k.pages = append(k.pages, p)
	}
}
