package fanout

import (
	"errors"

	"github.com/fanoutgo/fanout/internal/callback"
)

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
// error when there is nothing to receive. Only then does [Member.Ready] have
// another value, and is [MemberOptions.OnReady] called again, when there is.
// A *GapError is not the end: call TryReceiveBatch again.
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

// endsMember reports whether an error that take has returned is one of which
// the member has not ended yet.
func endsMember(err error) bool {
	return err != nil && (errors.Is(err, ErrSlow) || isReason(err))
}

// rests notes that there is nothing to receive, so that OnReady is called for
// what comes next. It reports false if something has come already, of which
// OnReady has not been told and will not be.
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

// anyReady reports whether another room waits. It is asked for every few
// messages, so it takes no lock: a room that is added now is seen the next
// time.
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
