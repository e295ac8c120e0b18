package fanout

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/fanoutgo/fanout/internal/few"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/roomlog"
)

// A Member is one connection: a viewer, a player, a task of the server. It is a
// cursor into each of its rooms; nothing is queued for it.
//
// One goroutine at a time may receive (Receive, ReceiveBatch, Messages); a
// second one gets [ErrConcurrentReceive]. All other methods may be called from
// any goroutine at any time.
type Member struct {
	// What each wake-up touches comes first, and lies together.

	// walk is held while cursors are read or closed, never while waiting.
	walk    locks.Mutex[locks.Walk]
	current *membership // being read; not in the ready queue, not parked, not refilled. Guarded by walk

	readyMu locks.Mutex[locks.Ready] // guards the ready queue, and wake against writes
	ready   readyQueue
	wake    chan struct{} // capacity 1: there is something in the ready queue, or the end; nil: nobody has waited yet. Made by the goroutine that receives, or under walk

	err       atomic.Uint32 // how it stands; see standings. Written under mu
	others    atomic.Bool   // ready is not empty. Written under readyMu
	receiving bool          // somebody is in Receive. Guarded by walk
	received  bool          // somebody has been. Guarded by walk
	calls     bool          // extras.onReady is set; never changed
	connected uint32        // the hub's age then; see Member.since. Never changed

	mu    locks.Mutex[locks.Member] // guards rooms, done, err
	rooms few.Map[*membership]
	done  chan struct{} // closed at the end; nil: nobody has asked yet

	hub  *Hub
	num  uint64 // of the hub's members
	more atomic.Pointer[extras]
}

// There are many members, most of them idle: what few of them have is apart.
type extras struct {
	info       []byte                  // replaced, not changed. Guarded by Member.mu
	user       *user                   // never changed
	copies     *item.Copies[milestone] // of messages to several rooms; nil until the first. Guarded by Member.walk
	departures item.Stays              // in rooms that the member has left. Guarded by Member.mu
	direct     *direct                 // direct messages; nil until the first. Guarded by Member.mu
	everyone   *membership             // what is said to everyone, from when it is. Guarded by Hub.mu
	ending     *ending                 // set, once, before err says so
	onReady    func(*Member)           // never changed
	told       atomic.Bool             // onReady was called, and take has not returned 0 since
}

// extras returns what few members have.
func (m *Member) extras() *extras {
	if e := m.more.Load(); e != nil {
		return e
	}
	m.more.CompareAndSwap(nil, new(extras))
	return m.more.Load()
}

// direct is a member's log of direct messages.
type direct struct {
	log roomlog.Log[item.Entry, *membership]
	membership
}

// hubOf returns the hub's part of a member ID.
func hubOf(memberID string) (string, error) {
	hub, ok := item.HubOf(memberID)
	if !ok {
		return "", fmt.Errorf("%w: %q is no member ID; Member.ID returns one", ErrInvalidMember, memberID)
	}
	return hub, nil
}

// ID returns the member's ID. It contains the ID of the member's hub, is never
// given to another member, and is unrelated to the names of rooms.
func (m *Member) ID() string { return item.MemberID(m.hub.id, m.num) }

// Rooms returns the names of the rooms that the member is in, in no order.
// There are none once it is being closed with a reason.
func (m *Member) Rooms() []string {
	m.mu.Lock()
	var all []*membership
	if m.err.Load() == alive {
		all = m.rooms.List()
	}
	m.mu.Unlock()
	names := make([]string, 0, len(all))
	for _, ms := range all {
		ms.room.mu.Lock()
		if ms.joined && ms.room.name != "" { // that of its user has none
			names = append(names, ms.room.name)
		}
		ms.room.mu.Unlock()
	}
	return names
}

// Done returns a channel that is closed when the member has ended: because of
// Close, because its hub closed, because it was too slow, or because of
// [Selection.Close] or [Hub.Drain] when it has received what was left for it.
// [Member.Err] says which. A goroutine that
// may block while it writes to the member's connection should watch it.
func (m *Member) Done() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done == nil {
		m.done = make(chan struct{})
		if m.endError() != nil {
			close(m.done)
		}
	}
	return m.done
}

// Close takes the member out of all rooms and off the hub. When it returns
// nothing more arrives: Receive returns [ErrClosed]. It always returns nil. A
// second call, or one while the member ends for another reason, waits until the
// member is out.
func (m *Member) Close() error {
	m.end(ErrClosed)
	return nil
}

// end makes err the member's final error, if it has none, and takes the member
// out of everything. For others that is one step: a second call waits until the
// member is out.
func (m *Member) end(err error) {
	m.fail(err)
	m.walk.Lock() // a Receive that is copying has finished, and the next one sees the error
	defer m.walk.Unlock()
	h := m.hub
	h.mu.Lock()
	h.unregister(m)
	delete(h.leaving, m.num)
	h.tellDrained()
	var everyone *membership
	if e := m.more.Load(); e != nil {
		everyone, e.everyone = e.everyone, nil
	}
	h.mu.Unlock()

	m.mu.Lock()
	all := m.rooms.List()
	m.rooms = few.Map[*membership]{}
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
	h.switchboard.MemberGone(m.num)
}

// fail sets the final error, unless there is one.
func (m *Member) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.endError() != nil {
		return
	}
	m.err.Store(standingOf(err))
	if errors.Is(err, ErrSlow) {
		m.hub.stats.slow.Add(1)
	}
	if m.done != nil {
		close(m.done)
	}
	m.wakeUp()
}

// wakeUp has a Receive that waits look again.
func (m *Member) wakeUp() {
	m.readyMu.Lock()
	wake := m.wake
	m.readyMu.Unlock()
	m.notify(wake)
}

// reserve returns the membership of a room for a Join that begins: the one that
// is there, or a new one. A Resume (nil: it is none) needs a new one.
//
// It holds walk, so that a Leave of the membership before has taken that out of
// the room: OnLeave is called before OnJoin.
func (m *Member) reserve(rs *roomState, r *memberReplay) (*membership, error) {
	m.walk.Lock()
	defer m.walk.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.refusal(); err != nil {
		return nil, err
	}
	ms := m.rooms.Get(rs.channel)
	if ms == nil {
		ms = new(membership)
		ms.init(m, rs)
		if r != nil {
			ms.place.replay = r
		}
		m.rooms.Put(ms)
	} else if r != nil {
		return nil, ErrJoined
	}
	ms.joiners++
	return ms, nil
}

// endJoin ends a Join, or a Resume (r; nil: it was none). If it failed, and no
// other one goes on for the same membership, and none succeeded before, then
// there is no membership; nothing was received by it. A Join that goes on does
// so without a Resume that failed.
func (m *Member) endJoin(ms *membership, r *memberReplay, err error) {
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
	case ms.joiners == 0 && m.rooms.Get(rs.channel) == ms:
		m.rooms.Delete(rs.channel)
		ms.left.end()
	case r != nil && ms.place.replay == r:
		ms.place.replay = nil
		ms.tell()
	}
}

// leave takes the member out of the room with a channel. It holds walk, so that
// nothing of the room is received once the membership cannot be found.
func (m *Member) leave(channel string) {
	m.walk.Lock()
	defer m.walk.Unlock()
	m.mu.Lock()
	ms := m.rooms.Get(channel)
	if ms != nil {
		m.rooms.Delete(channel)
		m.depart(ms)
		ms.left.end()
	}
	m.mu.Unlock()
	if ms != nil {
		m.remove(ms)
	}
}

// remove ends a membership that has been taken out of the member's rooms. No
// Receive is copying, and the next one sees that ms has left.
func (m *Member) remove(ms *membership) {
	m.walk.AssertHeld()
	ms.left.end()
	if m.current == ms {
		m.current = nil
	}
	ms.room.remove(ms)
	m.forgetDepartures()
	m.passedOver(ms)
}

// send appends a direct message.
func (m *Member) send(gap roomlog.Gap, entries []item.Entry) {
	m.mu.Lock()
	if m.refusal() != nil {
		m.mu.Unlock()
		return
	}
	x := m.extras()
	d := x.direct
	if d == nil {
		d = new(direct)
		d.log.Init(m.hub.standard)
		d.init(m, m.hub.everyone)
		d.log.Open(&d.cursor, &d.membership)
		d.cursor.Park()
		x.direct = d
	}
	woken := d.log.Append(gap, entries)
	m.mu.Unlock()
	woken.Wake(1)
}
