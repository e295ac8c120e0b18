package fanout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/backoff"
	"github.com/fanoutgo/fanout/internal/history"
	"github.com/fanoutgo/fanout/internal/roomlog"
	"github.com/fanoutgo/fanout/internal/sequence"
)

// A retained is the history of a room as this hub follows it: how far the log
// has come, and what to do when it is not known to be whole. It is part of a
// roomState, whose lock guards all that changes.
//
// While the hub follows, each frame that comes has the position after the last
// one and goes into the log. When one does not (a hole, a new epoch), or when
// the subscription was interrupted, a reader (see readers) asks the backend for
// what comes after the last position; what arrives meanwhile waits, so that the
// log gets everything once and in order.
type retained struct {
	keep Retention // like mark never changed
	mark uint64    // of the room, in the epochs that users see

	requests  requests // of members that come from behind
	doubts    *doubts  // nil: there were none
	life      int      // grows when the room is unsubscribed: then a reader stops
	ages      bool     // the janitor knows that there is a tail: see agingTails
	following          // begins anew then

	// wide: the history is read, or was until wideAt (see ticks): the room holds
	// more than its window, so that members meet what has come meanwhile.
	wide   bool
	wideAt int64
	// pushedAt is when the hub last pushed members out of the window by catching
	// up; see ticks. 0: none is excused for that.
	pushedAt int64
}

// A following is what a hub knows of a room's history while it is subscribed.
type following struct {
	known  bool                // pos is known: the hub follows
	pos    adapter.Position    // the backend's, of the last message in the log
	began  adapter.Position    // where pos was at first: nobody here misses what is before that
	before []adapter.PastEpoch // as the last page had it
	// blind: the history cannot be read. The next frame is taken as it comes.
	blind bool
	// torn: the subscription broke without good order, so the old home may have
	// taken messages that nobody will ever show us.
	torn bool
	// lived is the epoch in which the reading began. If nothing was torn, we have
	// got all that was ever said in it.
	lived uint64
	// trimmed is the number of messages that were reported missing because of
	// their positions, and that no publisher's numbers have shown yet.
	trimmed uint64
	// comparedAt is when the history was last read because of a frame from
	// before pos; see ticks. 0: never.
	comparedAt int64
	// compared: the history has just been read, so it is not read because of the
	// frames that have waited for that.
	compared bool

	busy    bool // a reader is at it
	again   bool // the reader is to read once more, from where it will be then
	waiting bool // all that the history has is in the log; some of pending it does not have, so far
	pending []keptBatch
	old     int  // of pending: they were there when the reading began
	held    int  // bytes in pending
	dropped bool // something did not fit into pending
	lost    bool // of that the history may lack some
	err     error

	tail  tail
	pages []*page // read lately for members that come from behind
}

const (
	firstRetry = backoff.First
	lastRetry  = backoff.Max

	// pageMessages bounds what is asked for at a time.
	pageMessages = 2048
	// catchUpBytes bounds a page that a hub reads to catch up, in bytes.
	catchUpBytes = 2 << 20
	// maxHeld bounds what waits for a reader, in bytes. What is more is read.
	maxHeld = 4 << 20
)

// A keptBatch is a frame with its place in the history.
type keptBatch struct {
	batch
	at    adapter.Position // of the last message; zero: the frame is not kept
	first uint64           // offset of the first message
	held  int              // bytes that it takes of retained.held
	kept  int64            // when it was kept, by our own clock: see ticks
	bad   error            // why the frame cannot be read: then the batch is zero
}

// openKept checks a frame that has a position, which is believed.
func openKept(f adapter.KeptFrame) keptBatch {
	b := keptBatch{at: f.At, first: f.At.Offset}
	b.bad = b.open(f.Frame)
	if n := uint64(b.count()); b.bad == nil && n > f.At.Offset {
		b.bad = fmt.Errorf("%d messages that end at offset %d", n, f.At.Offset)
		b.batch = batch{}
	}
	if b.bad == nil {
		b.first -= uint64(b.count()) - 1
	}
	b.kept = ticks() - f.Age.Nanoseconds()
	return b
}

// unpackKept is unpack with positions.
func (b *keptBatch) unpackKept(u *unpacker, h *Hub, skip int, sender string) {
	b.unpack(u, h, skip, sender)
	u.at = adapter.Position{Epoch: b.at.Epoch, Offset: b.first + uint64(skip) - 1}
}

// receiveKept takes a frame with its position from the adapter.
func (rs *roomState) receiveKept(f adapter.KeptFrame) {
	h, k := rs.hub, rs.kept
	if k == nil { // other hubs keep a history here, and we do not
		rs.receive(f.Frame)
		return
	}
	if !believed(f.At) {
		rs.unreadable(fmt.Errorf("a frame with the position %v", f.At))
		return
	}
	b := openKept(f)
	h.stats.received.Add(uint64(b.count()))
	if b.bad != nil {
		h.malformed(rs.channel, b.bad)
	}
	rs.mu.Lock()
	w := rs.takeKept(b, len(f.Frame))
	rs.mu.Unlock()
	w.run(h)
}

// takeKept puts a batch into the log, or has it wait. rs.mu is held.
func (rs *roomState) takeKept(b keptBatch, size int) wakeups {
	k := rs.kept
	b.held = size + int(unsafe.Sizeof(b))
	if !k.busy || k.waiting && !b.at.IsZero() {
		w, fits := rs.advance(&b)
		if fits {
			return w
		}
		if !k.busy {
			pause := k.pause()
			rs.readAfter(pause)
			k.waiting = pause > 0
		}
	}
	if k.held += b.held; k.held > maxHeld {
		k.dropped = true
	}
	if k.dropped {
		// The history has most of it. What has no position it does not have.
		k.lost = k.lost || k.waiting || slices.ContainsFunc(append(k.pending, b), func(b keptBatch) bool { return b.at.IsZero() })
		k.pending, k.held, k.old = nil, 0, 0
	} else {
		k.pending = append(k.pending, b)
	}
	return wakeups{}
}

// advance puts a batch into the log if it is the next one, or nothing if it has
// been there. It does not fit if something is missing before it. rs.mu is held.
func (rs *roomState) advance(b *keptBatch) (w wakeups, fits bool) {
	k := rs.kept
	switch {
	case b.at.IsZero():
		return rs.take(&b.batch), true
	case !k.known:
		return wakeups{}, false
	case k.blind:
		k.blind = false
		k.pos = adapter.Position{Epoch: b.at.Epoch, Offset: b.first - 1}
		k.tail.reset(k.pos)
	case k.pos.IsZero() && b.first == 1: // nothing was ever said before it
		k.pos.Epoch = b.at.Epoch
		k.tail.reset(k.pos)
	case b.at.Epoch < k.pos.Epoch:
		if _, past := k.lastOf(b.at.Epoch); !past && k.compares() {
			return wakeups{}, false
		}
		return rs.disown(b), true
	case b.at.Epoch == k.pos.Epoch && b.at.Offset <= k.pos.Offset:
		if b.head.Count > 0 && !rs.in.Accounted(&b.head) && k.compares() {
			return wakeups{}, false
		}
		return rs.pass(b), true
	case b.at.Epoch > k.pos.Epoch || b.first-1 > k.pos.Offset:
		return wakeups{}, false
	}
	return rs.follow(b, roomlog.Gap{}), true
}

// follow puts the next batch into the log, after a gap. k.pos is before it or in
// it. rs.mu is held.
func (rs *roomState) follow(b *keptBatch, gap roomlog.Gap) wakeups {
	k, overlap := rs.kept, 0
	if b.first <= k.pos.Offset {
		overlap = int(min(uint64(b.count()), k.pos.Offset-b.first+1))
	}
	skip, sender := overlap, ""
	var earlier roomlog.Gap
	if b.head.Count > 0 {
		v := rs.in.AcceptKept(&b.head, overlap, &k.trimmed)
		skip, sender = v.Skip, v.Sender
		earlier, gap = rs.addGaps(gap, &v)
		rs.hub.stats.repeated.Add(uint64(max(0, v.Repeated-overlap)))
	}
	gap.Unknown = gap.Unknown || b.bad != nil
	if !gap.IsZero() || !earlier.IsZero() {
		k.tail.reset(adapter.Position{Epoch: b.at.Epoch, Offset: b.first - 1 + uint64(overlap)})
	}
	k.pos = b.at
	// What members have had before, at another place, is for those who resume.
	var u unpacker
	b.unpackKept(&u, rs.hub, overlap, sender)
	return rs.appendBatch(earlier, gap, &u, skip-overlap, b.kept)
}

// addGaps returns what is missing before the run, and a gap with what is
// missing besides that. rs.mu is held.
func (rs *roomState) addGaps(gap roomlog.Gap, v *sequence.Verdict) (earlier, sum roomlog.Gap) {
	earlier, more := rs.gaps(v)
	return earlier, roomlog.Gap{Missed: gap.Missed + more.Missed, Unknown: gap.Unknown || more.Unknown}
}

// pass takes a batch whose place in the order the log is beyond: it came
// before. If the numbers say that it did not, another was made up in its place,
// and it is missing. rs.mu is held.
func (rs *roomState) pass(b *keptBatch) wakeups {
	if b.head.Count == 0 {
		rs.hub.stats.repeated.Add(uint64(b.count()))
		return wakeups{}
	}
	v := rs.in.AcceptKept(&b.head, b.head.Count, &rs.kept.trimmed)
	rs.hub.stats.repeated.Add(uint64(v.Repeated))
	if k := rs.kept; b.at.Epoch == k.began.Epoch && b.at.Offset <= k.began.Offset {
		return wakeups{} // it was on its way when we came
	}
	earlier, gap := rs.gaps(&v)
	return rs.appendAfter(earlier, gap, nil)
}

// disown deals with a batch of an epoch that is over. Unless it came before, the
// history does not have it: a server took it that is none any more. rs.mu is held.
func (rs *roomState) disown(b *keptBatch) wakeups {
	if last, ok := rs.kept.lastOf(b.at.Epoch); ok && b.at.Offset <= last {
		return rs.pass(b)
	}
	if b.head.Count == 0 {
		return wakeups{}
	}
	v := rs.in.AcceptKept(&b.head, 0, &rs.kept.trimmed)
	v.Missed += b.head.Count - v.Skip
	earlier, gap := rs.gaps(&v)
	if v.Lost() > 0 {
		rs.kept.tail.reset(rs.kept.pos)
	}
	return rs.appendAfter(earlier, gap, nil)
}

// compareEvery is how often a history is read because of frames that contradict
// the place where the log is in it.
const compareEvery = time.Second

// compares reports whether the history is to be read because of a frame that is
// from before the place where the log is, and did not come before. It may be
// that of a server that is none any more. Or it is that place that is wrong:
// somebody has made it up, or the history is gone, and its server's clock was
// set back. The lock of the room is held.
func (k *retained) compares() bool {
	now := ticks() | 1
	if k.compared || k.comparedAt != 0 && time.Duration(now-k.comparedAt) < compareEvery {
		return false
	}
	k.comparedAt = now
	return true
}

// lastOf returns the last offset of a past epoch.
func (k *retained) lastOf(epoch uint64) (last uint64, ok bool) {
	for _, past := range k.before {
		if past.Epoch == epoch {
			return past.Last, true
		}
	}
	return 0, false
}

// forget is called when the room is not subscribed any more. rs.mu is held.
func (k *retained) forget() {
	k.life++
	k.following = following{}
}

// readPage is one call of the historian.
func (h *Hub) readPage(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
	h.stats.reads.Add(1)
	page, err := h.historian.History(ctx, channel, q)
	if err == nil {
		err = history.Check(&page, q.Since, believedEpoch)
	}
	return page, err
}

// begin notes where a room stands that has just been subscribed.
func (rs *roomState) begin(life int, page *adapter.Page) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	k := rs.kept
	if k.life != life {
		return
	}
	k.known, k.pos, k.began, k.before = true, page.Head, page.Head, page.Before
	k.tail.reset(page.Head)
}

// enter goes on in an epoch of a page: from here on offsets tell. It reports
// whether something may have been lost on the way there, though it had been
// acknowledged. Then what the publishers' numbers show to be missing from here
// on is that. rs.mu is held.
func (rs *roomState) enter(page *adapter.Page, epoch uint64) (doubt bool) {
	k := rs.kept
	if k.pos.Epoch == epoch {
		return false
	}
	witnessed := k.lived
	if k.torn {
		witnessed = 0
	}
	doubt = !history.Whole(page, k.pos.Epoch, epoch, witnessed)
	if doubt {
		rs.in.BeginRun(time.Now())
	}
	k.pos.Epoch = epoch
	return doubt
}

// trim goes on at an offset, if that is further on, and adds what lies between
// to a gap: it is not in the history any more. rs.mu is held.
func (rs *roomState) trim(gap roomlog.Gap, offset uint64) roomlog.Gap {
	k := rs.kept
	if offset <= k.pos.Offset {
		return gap
	}
	missed, absurd := history.Count(offset - k.pos.Offset)
	k.pos.Offset = offset
	rs.trimmed(missed)
	return roomlog.Gap{Missed: gap.Missed + missed, Unknown: gap.Unknown || absurd}
}

// trimmed notes that messages have been found missing by their positions. rs.mu
// is held.
func (rs *roomState) trimmed(missed int) {
	if missed == 0 {
		return
	}
	rs.in.Trim() // whose they were is seen later: they are not counted twice
	rs.kept.trimmed += uint64(missed)
	rs.hub.stats.missed.Add(uint64(missed))
}

// goBack returns where to go on in a history that is at head, which is before
// the place where the log was: at the frames of it that have waited. The lock
// of the room is held.
func (k *retained) goBack(head adapter.Position) adapter.Position {
	for i := range k.pending {
		if b := &k.pending[i]; !b.at.IsZero() && b.at.Epoch == head.Epoch && b.first <= head.Offset {
			return adapter.Position{Epoch: head.Epoch, Offset: b.first - 1}
		}
	}
	return head
}

// judge says what is missing between the log and a page, and takes the position
// to where the page goes on. rs.mu is held.
func (rs *roomState) judge(page *adapter.Page) roomlog.Gap {
	k := rs.kept
	a := history.Compare(page, k.pos)
	if k.pos.IsZero() { // there was no history when we came: all of it is new
		a.Miss(a.From)
	}
	if a.Lost {
		rs.in.BeginRun(time.Now())
		k.pos.Epoch = a.Epoch
	}
	rs.trimmed(a.Missed)
	k.pos.Offset = a.From
	return roomlog.Gap{Missed: a.Missed, Unknown: a.Lost}
}

// giveUp ends a reading that the backend refuses: the room goes on as one
// without a history does.
func (rs *roomState) giveUp(life int, err error) {
	h, k := rs.hub, rs.kept
	rs.mu.Lock()
	if k.life != life {
		rs.mu.Unlock()
		return
	}
	var ws []wakeups
	k.busy, k.err = false, err
	if k.known {
		k.blind = true
		k.tail.reset(k.pos)
		rs.in.BeginRun(time.Now())
		ws = append(ws, rs.append(roomlog.Gap{Unknown: true}, nil))
		for i := range k.pending {
			w, fits := rs.advance(&k.pending[i])
			if !fits { // something is missing here as well
				k.blind = true
				ws = append(ws, rs.append(roomlog.Gap{Unknown: true}, nil))
				w, _ = rs.advance(&k.pending[i])
			}
			ws = append(ws, w)
		}
	}
	k.pending, k.held, k.dropped = nil, 0, false
	rs.tell()
	rs.mu.Unlock()
	for _, w := range ws {
		w.run(h)
	}
	if !errors.Is(err, ErrClosed) {
		h.historyUnreadable(rs.name, err)
	}
}

// historyUnreadable complains of a history that cannot be read.
func (h *Hub) historyUnreadable(room string, err error) {
	if h.refused.first() {
		h.log.Error("fanout: history cannot be read, what was missed is reported as a gap (said once a minute, for all rooms)",
			"room", room, "error", err)
	}
}

// An occasionally says when something is worth a line in the log again.
type occasionally struct{ last atomic.Int64 }

const complainEvery = time.Minute

// first reports true the first time, and again a while later.
func (o *occasionally) first() bool {
	last, now := o.last.Load(), ticks()|1 // 0 is never
	return (last == 0 || time.Duration(now-last) >= complainEvery) && o.last.CompareAndSwap(last, now)
}
