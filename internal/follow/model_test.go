package follow

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/sequence"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

// A model is a backend and a room that follows it: the history is a slice, and
// messages are their indexes among all that were ever published.
type model struct {
	*testing.T
	Follower[[]int]
	tracker sequence.Tracker
	now     time.Time

	history []Frame[[]int] // as the backend has it
	head    adapter.Position
	past    []adapter.PastEpoch
	first   int // of history, that is not trimmed
	down    bool
	next    [4]uint64 // hubs' numbers

	stage   int // of the reader: 0 nobody reads, 1 it is due, 2 page is read
	page    adapter.Page
	pageOf  []Frame[[]int]
	delayed []Frame[[]int] // on their way to the hub

	published int
	delivered map[int]int
	order     []int // of delivery
	failed    int   // numbers that no message has
	missed    int
	unknown   bool
}

func newModel(t *testing.T) *model {
	m := &model{T: t, delivered: make(map[int]int), now: time.UnixMilli(1_700_000_000_000), head: adapter.Position{Epoch: 1}}
	m.Init(&m.tracker)
	m.tracker.BeginRun(m.now)
	m.due(m.Subscribed())
	for m.stage != 0 {
		m.read()
	}
	for hub := range m.next {
		if m.next[hub] = 1; hub > 0 { // the first one is heard later
			m.publish(hub, 1)
		}
	}
	return m
}

// play does what the bytes say, then lets everything settle.
func (m *model) play(ops []byte, loses bool) {
	for _, op := range ops {
		m.now = m.now.Add(10 * time.Millisecond)
		switch n := int(op / 16); op % 16 {
		case 0, 1, 2, 3, 4, 5:
			m.publish(n%4, 1+n/4)
		case 6, 7, 8, 9:
			m.read()
		case 10: // the link breaks
			m.interrupt(true)
		case 11:
			m.restore()
		case 12: // retention
			m.first = max(m.first, len(m.history)-n)
		case 13: // the room moves in good order
			m.interrupt(false)
			m.begin(true)
		case 14: // a server takes over, that may lack the latest frames
			if loses {
				m.interrupt(true)
				m.history = m.history[:max(m.first, 1, len(m.history)-n%4)]
				m.head.Offset = m.history[len(m.history)-1].At.Offset
				for i := range m.past {
					m.past[i].Last = min(m.past[i].Last, m.head.Offset)
				}
				m.begin(false)
			}
		case 15: // frames are on their way while others are published
			if n < 11 {
				m.delayed = append(m.delayed, m.make(n%4, 1))
			} else if n < 14 && !m.down && !m.Reading() { // or the history does not have it
				m.arrive()
				m.delayed = []Frame[[]int]{m.unkept(n % 4)}
				m.arrive()
				m.delayed = nil
			} else if n == 14 && loses { // a server that has been replaced takes frames
				m.take(m.published)
			} else { // a hub fails to publish one, and says so
				m.next[n%4]++
				m.failed++
			}
		}
	}
	m.restore()
	m.readAll()
	for hub := range m.next { // its numbers show what has been lost
		m.publish(hub, 1)
	}
	m.readAll()
	require.Equal(m, Live, m.State())
	require.Empty(m, m.pending)
}

// readAll reads until nobody reads. A page has three frames, and takes two
// steps; the rest of the steps are for what has to be read again.
func (m *model) readAll() {
	for range 1000 + len(m.history) {
		if m.read(); m.stage == 0 {
			return
		}
	}
}

// make publishes a frame: the backend has it.
func (m *model) make(hub, n int) Frame[[]int] {
	var ids []int
	for range n {
		ids = append(ids, m.published)
		m.published++
	}
	m.head.Offset += uint64(n)
	b := Frame[[]int]{
		Header:   wire.Header{Hub: uint64(hub + 1), Stream: 1, Seq: m.next[hub], Count: n, Time: uint64(m.now.UnixMilli())},
		Messages: n, At: m.head, First: m.head.Offset - uint64(n) + 1, Size: 200_000, Body: ids,
	}
	m.next[hub] += uint64(n)
	m.history = append(m.history, b)
	return b
}

// take has a server of a past epoch take a message, as one does that has been
// replaced and does not know it yet. The publisher sends every other message
// again, to the new server.
func (m *model) take(n int) {
	if len(m.past) == 0 || m.past[len(m.past)-1].Whole {
		return
	}
	past, hub := m.past[len(m.past)-1], n%4
	if !m.down {
		m.delayed = append(m.delayed, Frame[[]int]{
			Header:   wire.Header{Hub: uint64(hub + 1), Stream: 1, Seq: m.next[hub], Count: 1, Time: uint64(m.now.UnixMilli())},
			Messages: 1, At: adapter.Position{Epoch: past.Epoch, Offset: past.Last + 9}, First: past.Last + 9, Size: 1000,
		})
		m.arrive()
		m.delayed = nil
	}
	if n/4%2 == 0 {
		m.publish((hub+1)%4, 1)
		m.publish(hub, 1)
		return
	}
	m.published++
	m.next[hub]++
}

// unkept publishes a message that the backend does not keep.
func (m *model) unkept(hub int) Frame[[]int] {
	b := Frame[[]int]{
		Header:   wire.Header{Hub: uint64(hub + 1), Stream: 1, Seq: m.next[hub], Count: 1, Time: uint64(m.now.UnixMilli())},
		Messages: 1, Size: 1000, Body: []int{m.published},
	}
	m.published++
	m.next[hub]++
	return b
}

// publish publishes a frame, which arrives unless the link is down.
func (m *model) publish(hub, n int) {
	m.delayed = append(m.delayed, m.make(hub, n))
	if !m.down {
		m.arrive()
	}
	m.delayed = nil
}

func (m *model) arrive() {
	for _, b := range m.delayed {
		if a, placed, read := m.Receive(&b, m.now); placed {
			m.log(&a, &b)
		} else {
			m.due(read)
		}
	}
}

func (m *model) interrupt(unclean bool) {
	if !unclean && !m.down {
		m.arrive() // good order means that
	}
	m.delayed = nil
	if unclean || !m.down {
		m.Interrupted(unclean)
	}
	m.down = true
}

func (m *model) restore() {
	if m.down {
		m.down = false
		m.due(m.Restored())
	}
}

// begin begins an epoch.
func (m *model) begin(whole bool) {
	m.past = append(m.past, adapter.PastEpoch{Epoch: m.head.Epoch, Last: m.head.Offset, Whole: whole})
	m.head.Epoch++
}

func (m *model) due(r Read) {
	if r.Due {
		m.stage = 1
	}
}

// read does one step of the reader.
func (m *model) read() {
	switch m.stage {
	case 1:
		q, ok := m.Query(m.Generation())
		require.True(m, ok)
		m.answer(q)
		m.stage = 2
	case 2:
		if !m.Known() {
			m.Head(&m.page)
		} else {
			p := NewPage(&m.page)
			for i := range m.pageOf {
				a := m.Frame(p, &m.pageOf[i], m.now)
				m.log(&a, &m.pageOf[i])
			}
			a := m.PageEnd(p, m.now)
			m.log(&a, nil)
			if m.page.More {
				m.stage = 1
				return
			}
		}
		m.drain()
	}
}

func (m *model) drain() {
	for {
		held, more := m.Drain(m.now)
		for i := range held {
			m.log(&held[i].Append, &held[i].Frame)
		}
		if more {
			continue
		}
		switch step, wait := m.Drained(m.now); step {
		case Done:
			m.stage = 0
			return
		case Again:
			m.now = m.now.Add(wait)
			m.stage = 1
			return
		}
	}
}

// answer takes a page of a few frames from the backend.
func (m *model) answer(q adapter.Query) {
	m.page = adapter.Page{Head: m.head, Before: append([]adapter.PastEpoch(nil), m.past...), First: m.head.Offset + 1}
	m.pageOf = nil
	for _, b := range m.history[m.first:] {
		if !q.Since.Before(b.At) || b.At.Offset <= q.Since.Offset && b.At.Epoch == q.Since.Epoch {
			continue
		}
		m.page.First = min(m.page.First, b.First)
		if q.Limit == 0 {
			continue
		}
		if len(m.pageOf) == 3 {
			m.page.More = true
			break
		}
		m.pageOf = append(m.pageOf, b)
		m.page.Frames = append(m.page.Frames, adapter.KeptFrame{At: b.At})
	}
}

// log notes what goes into the log.
func (m *model) log(a *Append, b *Frame[[]int]) {
	m.missed += a.Missed()
	m.unknown = m.unknown || a.Gap.Unknown
	if !a.Messages {
		return
	}
	for _, id := range b.Body[a.Skip+a.Had:] {
		m.delivered[id]++
		if !b.At.IsZero() { // else it is ordered as it comes
			m.order = append(m.order, id)
		}
	}
}

// require checks that each message was delivered once and in order, or is
// counted. A backend that loses nothing leaves nothing Unknown.
func (m *model) require(known bool) {
	m.Helper()
	for id, n := range m.delivered {
		require.Equal(m, 1, n, "message %d", id)
	}
	require.IsIncreasing(m, m.order)
	for _, b := range m.history[m.first:] {
		for _, id := range b.Body {
			if m.delivered[id] == 0 { // quicker than require
				require.Fail(m, "not delivered, though the history has it", "message %d", id)
			}
		}
	}
	if known {
		require.False(m, m.unknown)
	}
	lost := m.published - len(m.delivered)
	require.LessOrEqual(m, m.missed, lost+m.failed)
	if !m.unknown {
		require.GreaterOrEqual(m, m.missed, lost)
	}
}

// TestModel checks what doc.go of the module promises for histories: each
// message is delivered once and in order, or counted where it is missing.
func TestModel(t *testing.T) {
	for name, loses := range map[string]bool{"a backend that loses nothing": false, "one that loses": true} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(3000) {
				r := rand.New(rand.NewPCG(seed, 1))
				ops := make([]byte, 20+r.IntN(200))
				for i := range ops {
					ops[i] = byte(r.Uint32())
				}
				m := newModel(t)
				m.play(ops, loses)
				m.require(!loses)
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
		})
	}
}

func FuzzModel(f *testing.F) {
	f.Add([]byte{0, 10, 1, 11, 6, 6, 13, 2, 11, 7}, false)
	f.Add([]byte{0, 0, 14, 3, 11, 8, 8, 12}, true)
	f.Fuzz(func(t *testing.T, ops []byte, loses bool) {
		m := newModel(t)
		m.play(ops, loses)
		m.require(!loses)
	})
}
