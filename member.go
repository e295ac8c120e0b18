package fanout

import (
	"context"
	"errors"
	"iter"
	"math"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/roomlog"
)

// A Member is one connection: a viewer, a player, a task of the server. It is a
// cursor into each of its rooms; nothing is queued for it.
//
// One goroutine at a time may receive (Receive, ReceiveBatch, Messages); a
// second one gets ErrConcurrentReceive. All else may be called from any
// goroutine at any time, Close included.
type Member struct {
	// What each wake-up touches comes first, and lies together.

	// walk is held while cursors are read or closed, never while waiting.
	walk    locks.Mutex[locks.Walk]
	current *membership // being read; not in the ready queue, not parked, not refilled. Guarded by walk

	readyMu locks.Mutex[locks.Ready] // guards the ready queue; and wake, which who receives makes
	ready   *membership              // the last of the queue, followed by the first; nil: it is empty
	wake    chan struct{}            // capacity 1: there is something in the ready queue, or the end; nil: nobody has waited yet

	err       atomic.Uint32 // final: an index of ends. Written under mu
	others    atomic.Bool   // ready is not nil. Written under readyMu
	receiving bool          // somebody is in Receive. Guarded by walk

	mu    locks.Mutex[locks.Member] // guards rooms, done, err
	rooms memberships
	done  chan struct{} // closed at the end; nil: nobody has asked yet

	hub  *Hub
	num  uint64 // of the hub's members
	more atomic.Pointer[extras]
}

// There are many members, most of them idle: what few of them have is apart.
type extras struct {
	info       []byte      // never changed
	copies     *copies     // of messages to several rooms; nil until the first. Guarded by Member.walk
	departures []departure // guarded by Member.mu
	direct     *direct     // direct messages; nil until the first. Guarded by Member.mu
	everyone   *membership // what is said to everyone, from when it is. Guarded by Hub.mu
}

// extras returns what few members have.
func (m *Member) extras() *extras {
	if e := m.more.Load(); e != nil {
		return e
	}
	m.more.CompareAndSwap(nil, new(extras))
	return m.more.Load()
}

// ends are the final errors.
var ends = [...]error{nil, ErrClosed, ErrSlow}

// direct is a member's log of direct messages.
type direct struct {
	log roomlog.Log[entry, *membership]
	membership
}

// ID returns the member's ID. It says which hub the member is connected to, is
// never given again, and has nothing to do with the names of rooms.
func (m *Member) ID() string { return m.hub.id + "-" + strconv.FormatUint(m.num, 36) }

// Receive returns the next message of any of the member's rooms, in the order
// of each room; rooms take turns. It waits until there is one or ctx ends.
//
// A *GapError says that messages of a room are missing before the next one; it
// is not final. ErrClosed and ErrSlow are. After the error of ctx Receive can be
// called again; nothing is lost.
func (m *Member) Receive(ctx context.Context) (Message, error) {
	var one [1]Message
	_, err := m.ReceiveBatch(ctx, one[:])
	return one[0], err
}

// ReceiveBatch waits like Receive until there is something, then fills buf with
// what is there and returns the number of messages. It returns either messages
// or an error. It is the faster way for a busy room: one call, and for example
// one write to the network, for many messages. Buf must have room for at least
// one message; it keeps alive what was put into it, so clear it when a quiet
// connection is to hold nothing.
func (m *Member) ReceiveBatch(ctx context.Context, buf []Message) (int, error) {
	if len(buf) == 0 {
		return 0, failed("receive", errEmptyBuffer)
	}
	if ctx.Err() != nil {
		return 0, failed("receive", context.Cause(ctx))
	}
	m.walk.Lock()
	if m.receiving {
		m.walk.Unlock()
		return 0, failed("receive", ErrConcurrentReceive)
	}
	m.receiving = true
	for {
		n, err := m.take(buf)
		if n == 0 && err == nil {
			m.walk.Unlock()
			err = m.wait(ctx)
			m.walk.Lock()
			if err == nil {
				continue
			}
		}
		m.receiving = false
		m.walk.Unlock()
		if errors.Is(err, ErrSlow) {
			m.end(err)
		}
		return n, receiveError(err)
	}
}

// receiveError returns the error that users see of a Receive. A GapError says
// itself what it is about.
func receiveError(err error) error {
	if gap := (*GapError)(nil); err == nil || errors.As(err, &gap) {
		return err
	}
	return failed("receive", err)
}

// wait waits until something may be ready. The end of the member is no error
// here: take says it. One goroutine at a time waits, so it alone makes wake.
func (m *Member) wait(ctx context.Context) error {
	if m.wake == nil && !m.firstWait() {
		return nil
	}
	if ctx.Done() == nil {
		<-m.wake
		return nil
	}
	select {
	case <-m.wake:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// firstWait makes wake, and reports whether there is something to wait for: until
// now nobody could be told.
func (m *Member) firstWait() bool {
	m.readyMu.Lock()
	defer m.readyMu.Unlock()
	m.wake = make(chan struct{}, 1)
	return m.ready == nil && m.err.Load() == 0
}

// Messages returns the messages and gaps as they come, as Receive does. It ends
// after a final error or the error of ctx, which it yields, and goes on after a
// *GapError.
func (m *Member) Messages(ctx context.Context) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for {
			msg, err := m.Receive(ctx)
			if !yield(msg, err) {
				return
			}
			if _, gap := errors.AsType[*GapError](err); err != nil && !gap {
				return
			}
		}
	}
}

// take fills buf with what is ready.
func (m *Member) take(buf []Message) (n int, err error) {
	m.walk.AssertHeld()
	if err := m.endError(); err != nil {
		return 0, err
	}
	for n < len(buf) {
		if m.current == nil {
			if m.current = m.dequeue(); m.current == nil {
				return n, nil
			}
		}
		ms := m.current
		if ms.left.Load() {
			m.current = nil
			continue
		}
		if ms.place != nil && ms.place.replay != nil {
			r := ms.place.replay
			switch {
			case n > 0 && !r.gap.IsZero():
				return n, nil // the gap comes first the next time
			case !r.empty():
				got, err := m.takePart(buf[n:], ms, r)
				if err != nil {
					return 0, err
				}
				n += got
				m.rotate()
			case r.met:
				ms.place.replay = nil
			case !ms.advance():
				m.current = nil
				m.hub.readers.aside(func() { ms.room.bring(ms) }) // which puts it into the queue again
			}
			continue
		}
		items, fresh, gap := ms.cursor.Peek()
		switch {
		case gap:
			if n > 0 {
				return n, nil // the gap comes first the next time
			}
			if m.refills(ms) {
				ms.place.replay = ms.refill()
				ms.place.behind.Store(follows)
				continue
			}
			if err := m.gap(ms); err != nil {
				return 0, err
			}
		case len(items) > 0:
			ms.caughtUp()
			got, used := m.copy(buf[n:], ms, items, fresh)
			n += got
			ms.pass(items[:used])
			ms.cursor.Advance(used)
			m.rotate()
		case n > 0 && !m.anyReady():
			// Who has something to do may find more when it comes back, so
			// parking can wait: a busy member costs publishers nothing.
			return n, nil
		case ms.cursor.Park():
			ms.caughtUp()
			m.current = nil
		}
	}
	return n, nil
}

// refills reports whether the gap before the cursor of ms is its own, and the
// history has what is missing there.
func (m *Member) refills(ms *membership) bool {
	p := ms.place
	return p != nil && ms.room.kept != nil && ms.cursor.Cut() && (ms.room.overflow() == Skip || p.behind.Load() != within) && !p.plain
}

// gap consumes the gaps before the cursor of ms, and returns the error for them.
// It is nil when all that the cursor has fallen behind was volatile.
func (m *Member) gap(ms *membership) error {
	m.walk.AssertHeld()
	var sum roomlog.Gap
	for more := true; more; {
		fell := ms.cursor.Cut()
		g := ms.cursor.TakeGap(ms.opened)
		if fell && ms.place != nil {
			ms.place.plain = false
		}
		sum.Missed += min(g.Missed, math.MaxInt-sum.Missed)
		sum.Unknown = sum.Unknown || g.Unknown
		if fell && !g.IsZero() && ms.room.overflow() == Disconnect {
			return ErrSlow
		}
		_, _, more = ms.cursor.Peek()
		more = more && !m.refills(ms)
	}
	if sum.IsZero() {
		return nil
	}
	return &GapError{Room: ms.room.name, Missed: sum.Missed, Unknown: sum.Unknown}
}

// takePart takes from what a member gets from the history.
func (m *Member) takePart(buf []Message, ms *membership, r *replay) (got int, err error) {
	m.walk.AssertHeld()
	if gap := r.gap; !gap.IsZero() {
		r.gap = roomlog.Gap{}
		err = &GapError{Room: ms.room.name, Missed: gap.Missed, Unknown: gap.Unknown}
	} else {
		var used int
		got, used = m.copy(buf, ms, r.entries, false)
		ms.pass(r.entries[:used])
		r.entries = r.entries[used:]
	}
	if len(r.entries) == 0 {
		r.entries = nil
		if p := ms.place; r.met || !r.at.IsZero() {
			p.last = public(r.at, ms.room.kept.mark)
		}
	}
	return got, err
}

// copy puts entries into buf and returns how many messages those gave, and how
// many entries are dealt with.
func (m *Member) copy(buf []Message, ms *membership, entries []entry, fresh bool) (got, used int) {
	var after Position
	if ms.place != nil {
		after = ms.place.after
	}
	for i := range entries {
		if got == len(buf) {
			return got, i
		}
		e := &entries[i]
		if (e.volatile && !fresh) || (e.filter != nil && !e.filter.admits(m)) {
			continue
		}
		if !after.IsZero() && !e.position.IsZero() && !after.Before(e.position) {
			continue // another hub was faster, and it resumed here
		}
		b := &buf[got]
		b.Room, b.Data, b.Sender, b.Position = ms.room.name, e.data, e.sender, e.position
		got++
	}
	return got, len(entries)
}

// enqueue notes that ms has something to read, and wakes who waits for it.
func (m *Member) enqueue(ms *membership) {
	m.readyMu.Lock()
	if ms.queued || ms.left.Load() {
		m.readyMu.Unlock()
		return
	}
	ms.queued = true
	wasEmpty := m.ready == nil
	if wasEmpty {
		ms.nextReady = ms
		m.others.Store(true)
	} else {
		ms.nextReady, m.ready.nextReady = m.ready.nextReady, ms
	}
	m.ready = ms
	wake := m.wake
	m.readyMu.Unlock()
	if wasEmpty {
		signal(wake)
	}
}

// signal leaves a word for who waits, or will wait. There may be one already, and
// a channel that is nil has nobody.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (m *Member) dequeue() *membership {
	if !m.anyReady() {
		return nil
	}
	m.readyMu.Lock()
	defer m.readyMu.Unlock()
	if m.ready == nil {
		return nil
	}
	ms := m.ready.nextReady
	if ms == m.ready {
		m.ready = nil
		m.others.Store(false)
	} else {
		m.ready.nextReady = ms.nextReady
	}
	ms.nextReady, ms.queued = nil, false
	return ms
}

// anyReady reports whether another room waits. It is asked for every few
// messages, so it takes no lock; who comes a moment later is seen the next time.
func (m *Member) anyReady() bool { return m.others.Load() }

// rotate puts the current room to the back of the queue if others wait.
func (m *Member) rotate() {
	if m.anyReady() {
		ms := m.current
		m.current = nil
		m.enqueue(ms)
	}
}

// Info returns what was given as MemberOptions.Info. Nobody may modify it.
func (m *Member) Info() []byte {
	if e := m.more.Load(); e != nil {
		return e.info
	}
	return nil
}

// Rooms returns the names of the rooms that the member is in, in no order.
func (m *Member) Rooms() []string {
	m.mu.Lock()
	all := m.rooms.all()
	m.mu.Unlock()
	names := make([]string, 0, len(all))
	for _, ms := range all {
		ms.room.mu.Lock()
		if ms.joined {
			names = append(names, ms.room.name)
		}
		ms.room.mu.Unlock()
	}
	return names
}

// Done returns a channel that is closed when the member has ended: by Close, by
// its hub, or as too slow. Whoever may be stuck in a write to the member's
// connection watches it.
func (m *Member) Done() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done == nil {
		m.done = make(chan struct{})
		if m.err.Load() != 0 {
			close(m.done)
		}
	}
	return m.done
}

// Close takes the member out of all rooms and off the hub. When it returns
// nothing more arrives: Receive returns ErrClosed. It always returns nil; a
// second call, and one beside the end of the member for another reason, waits
// until that is so.
func (m *Member) Close() error {
	m.end(ErrClosed)
	return nil
}

// end makes err the member's final error, if it has none, and takes the member
// out of everything. That is one step for all who look: whoever ends a member
// that is being ended waits until it is out.
func (m *Member) end(err error) {
	m.fail(err)
	m.walk.Lock() // a Receive that is copying has finished, and the next one sees the error
	defer m.walk.Unlock()
	h := m.hub
	h.mu.Lock()
	delete(h.members, m.num)
	var everyone *membership
	if e := m.more.Load(); e != nil {
		everyone, e.everyone = e.everyone, nil
	}
	h.mu.Unlock()

	m.mu.Lock()
	all := m.rooms.all()
	m.rooms = memberships{}
	if e := m.more.Load(); e != nil && e.direct != nil {
		e.direct.left.end()
	}
	m.mu.Unlock()
	if everyone != nil {
		m.remove(everyone)
	}
	for _, ms := range all {
		m.remove(ms)
	}
}

// fail sets the final error, unless there is one.
func (m *Member) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err.Load() != 0 {
		return
	}
	m.err.Store(uint32(slices.Index(ends[:], err)))
	if errors.Is(err, ErrSlow) {
		m.hub.stats.slow.Add(1)
	}
	if m.done != nil {
		close(m.done)
	}
	m.readyMu.Lock()
	wake := m.wake
	m.readyMu.Unlock()
	signal(wake)
}

// endError returns the final error, or nil while the member lives.
func (m *Member) endError() error { return ends[m.err.Load()] }

// reserve returns the membership of a room for a Join that begins: the one that
// is there, or a new one. A Resume (nil: it is none) needs a new one.
func (m *Member) reserve(rs *roomState, r *replay) (*membership, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.endError(); err != nil {
		return nil, err
	}
	ms := m.rooms.get(rs.channel)
	if ms == nil {
		ms = new(membership)
		ms.init(m, rs)
		if r != nil {
			ms.place.replay = r
		}
		m.rooms.put(ms)
	} else if r != nil {
		return nil, ErrJoined
	}
	ms.joiners++
	return ms, nil
}

// settle ends a Join, or a Resume (r; nil: it was none). If it failed, and no
// other one goes on for the same membership, and none succeeded before, then
// there is no membership; nothing was received by it. A Join that goes on does
// so without a Resume that failed.
func (m *Member) settle(ms *membership, r *replay, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ms.joiners--
	if err == nil {
		return
	}
	rs := ms.room
	rs.mu.Lock()
	defer rs.mu.Unlock()
	switch {
	case ms.joined:
	case ms.joiners == 0 && m.rooms.get(rs.channel) == ms:
		m.rooms.delete(rs.channel)
		ms.left.end()
	case r != nil && ms.place.replay == r:
		ms.place.replay = nil
		ms.tell()
	}
}

// leave takes the member out of the room with a channel. From the first moment
// at which the membership is not found any more nothing of it is received:
// walk is held.
func (m *Member) leave(channel string) {
	m.walk.Lock()
	defer m.walk.Unlock()
	m.mu.Lock()
	ms := m.rooms.get(channel)
	if ms != nil {
		m.rooms.delete(channel)
		m.depart(ms)
		ms.left.end()
	}
	m.mu.Unlock()
	if ms != nil {
		m.remove(ms)
	}
}

// remove ends a membership that is not among the member's rooms any more.
// m.walk is held: no Receive is copying, and the next one sees that ms has left.
func (m *Member) remove(ms *membership) {
	m.walk.AssertHeld()
	ms.left.end()
	if m.current == ms {
		m.current = nil
	}
	ms.room.remove(ms)
	m.forgetDepartures()
}

// send appends a direct message.
func (m *Member) send(e entry) {
	m.mu.Lock()
	if m.endError() != nil {
		m.mu.Unlock()
		return
	}
	x := m.extras()
	d := x.direct
	if d == nil {
		d = new(direct)
		d.log.Init(m.hub.limits.standard)
		d.init(m, m.hub.everyone)
		d.log.Open(&d.cursor, &d.membership)
		d.cursor.Park()
		x.direct = d
	}
	woken := d.log.Append(roomlog.Gap{}, []entry{e})
	m.mu.Unlock()
	woken.Wake(1)
}
