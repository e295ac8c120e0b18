package fanout

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/fanoutgo/fanout/internal/callback"
	"github.com/fanoutgo/fanout/internal/few"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/roomlog"
)

// A Member is one connection: a viewer, a player, a task of the server. It is a
// cursor into each of its rooms; no messages of rooms are queued for it. Direct
// messages have a log of the member's own, to which [Options.Window] and
// [Options.Overflow] apply.
//
// One goroutine at a time may receive (Receive, ReceiveBatch, Messages); a
// second one gets [ErrConcurrentReceive], also from TryReceiveBatch. All other
// methods may be called from any goroutine at any time.
type Member struct {
	// The fields that each wake-up touches come first, close together in memory.

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

// There are many members, most of them idle. What few of them need is kept
// apart.
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

// extras returns the extras of the member, and makes them if there are none.
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

// User returns what was given as [MemberOptions.User].
func (m *Member) User() string {
	if u := m.user(); u != nil {
		return u.name
	}
	return ""
}

func (m *Member) user() *user {
	if e := m.more.Load(); e != nil {
		return e.user
	}
	return nil
}

// Rooms returns the names of the rooms that the member is in, in no order.
// There are none once the member has ended, or receives what is left for it
// after [Selection.Close] or [Hub.Drain].
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
// [Member.Err] says which. A goroutine that may block while it writes to the
// member's connection should watch it.
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

// Close takes the member out of all rooms and off the hub. After that Receive
// returns [ErrClosed]. (One that is running may still return messages that it
// took before.) Close always returns nil. A second call, or one while the
// member ends for another reason, waits until the member is out.
func (m *Member) Close() error {
	m.end(ErrClosed)
	return nil
}

// end makes err the member's final error, if it has none, and takes the member
// out of its rooms and its hub. For other goroutines that is one step: a second
// call waits until it is complete.
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

// wakeUp makes a Receive that waits look again.
func (m *Member) wakeUp() {
	m.readyMu.Lock()
	wake := m.wake
	m.readyMu.Unlock()
	m.notify(wake)
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

// Ready returns a channel that has a value when there may be something to
// receive, for use in a select:
//
//	select {
//	case <-member.Ready():
//		// Call TryReceiveBatch until it returns 0 and no error.
//	case <-tick:
//	}
//
// It is the same channel each time, and it is never closed: after the member
// has ended TryReceiveBatch returns the final error. The value also wakes a
// goroutine that waits in Receive, so use one or the other. A member that was
// connected with [MemberOptions.OnReady] has no such channel: Ready returns
// nil.
func (m *Member) Ready() <-chan struct{} {
	if m.calls {
		return nil
	}
	m.walk.Lock()
	defer m.walk.Unlock()
	m.readyMu.Lock()
	defer m.readyMu.Unlock()
	if m.wake == nil {
		m.wake = make(chan struct{}, 1)
		if m.current != nil || !m.ready.empty() || m.err.Load() != alive {
			signal(m.wake)
		}
	}
	return m.wake
}

// TryReceiveBatch is [Member.ReceiveBatch] without waiting: it returns 0 and no
// error when there is nothing to receive. Call it until it does, also after a
// *GapError, or until it returns the final error: before that [Member.Ready]
// need not have another value, and [MemberOptions.OnReady] is not called again.
func (m *Member) TryReceiveBatch(buf []Message) (int, error) {
	if len(buf) == 0 {
		return 0, failed("receive", errEmptyBuffer)
	}
	m.walk.Lock()
	if m.receiving {
		m.walk.Unlock()
		return 0, failed("receive", ErrConcurrentReceive)
	}
	m.received = true
	n, err := m.take(buf)
	for n == 0 && err == nil && m.calls && m.rests() {
		n, err = m.take(buf)
	}
	m.walk.Unlock()
	if endsMember(err) {
		m.end(err)
	}
	return n, receiveError(err)
}

// endsMember reports whether an error of take is final, and the member has not
// ended with it yet.
func endsMember(err error) bool {
	return err != nil && (errors.Is(err, ErrSlow) || isReason(err))
}

// rests notes that there is nothing to receive, so that OnReady is called when
// something comes. It returns false if something has come already, for which
// OnReady will not be called.
func (m *Member) rests() (again bool) {
	told := &m.more.Load().told
	told.Store(false)
	return (m.anyReady() || m.endError() != nil) && told.CompareAndSwap(false, true)
}

// notify tells the receiver of the member that there is something to
// receive: the goroutine that waits for wake, or OnReady.
func (m *Member) notify(wake chan struct{}) {
	signal(wake)
	if m.calls && m.more.Load().told.CompareAndSwap(false, true) {
		m.hub.readyCalls.Add(m)
	}
}

// readyCalls are calls of members' OnReady.
type readyCalls = callback.Calls[*Member]

// callReady calls the OnReady of a member.
func callReady(m *Member) { m.more.Load().onReady(m) }

// enqueue notes that ms has something to read, and wakes the receiver.
func (m *Member) enqueue(ms *membership) {
	m.readyMu.Lock()
	if ms.left.Load() {
		m.readyMu.Unlock()
		return
	}
	first := m.ready.push(ms)
	if first {
		m.others.Store(true)
	}
	wake := m.wake
	m.readyMu.Unlock()
	if first {
		m.notify(wake)
	}
}

// signal wakes the receiver of c, now or when it next waits. Nobody receives
// from a nil channel.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// dequeue takes the first membership that has something to read, nil if there
// is none.
func (m *Member) dequeue() *membership {
	if !m.anyReady() {
		return nil
	}
	m.readyMu.Lock()
	defer m.readyMu.Unlock()
	ms := m.ready.pop()
	if m.ready.empty() {
		m.others.Store(false)
	}
	return ms
}

// anyReady reports whether another room waits. It is called every few messages,
// so it takes no lock: a room that is added now is seen the next time.
func (m *Member) anyReady() bool { return m.others.Load() }

// rotate puts the current room to the back of the queue if others wait.
func (m *Member) rotate() {
	m.walk.AssertHeld()
	if m.anyReady() {
		ms := m.current
		m.current = nil
		m.enqueue(ms)
	}
}
