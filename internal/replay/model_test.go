package replay

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/stretchr/testify/require"
)

// A model is a history, which is the offsets from first to head, a log that
// lags behind it, and members that come from behind.
type model struct {
	*testing.T
	store       Store[message]
	keep        adapter.Retention
	window      Window
	first, head uint64
	log         uint64
	now         int64
	reading     *adapter.Page // under way
	since       adapter.Position
	members     []*visitor
}

// A visitor is a member on its way.
type visitor struct {
	*Replay[message]
	wants    *Request[message]
	newcomer bool
	joined   bool
	from     uint64 // it came after this; a newcomer, after the first that it got
	next     uint64
	begun    bool // next is known
}

func newModel(t *testing.T) *model {
	return &model{
		T: t, keep: adapter.Retention{Messages: 300, Age: time.Hour}, window: Window{20, 1 << 20},
		first: 1, now: start,
	}
}

// play does what the bytes say, then brings all members to the log.
func (m *model) play(ops []byte) {
	m.store.Reset(adapter.Position{Epoch: 1})
	for _, op := range ops {
		m.now += int64(time.Millisecond)
		switch n := uint64(op / 8); op % 8 {
		case 0, 1: // messages are published
			m.head += n * 3
			m.first = max(m.first, m.head-min(m.head, uint64(m.keep.Messages))+1)
		case 2: // the log catches up, which may miss what was trimmed
			m.catchUp(m.log + n*4)
		case 3: // a member resumes
			m.members = append(m.members, &visitor{Replay: Resume[message](at(m.head - min(m.head, n*10))), from: m.head - min(m.head, n*10)})
			if v := m.members[len(m.members)-1]; v.from == 0 {
				v.Replay, v.newcomer = Resume[message](adapter.Position{}), true
			}
		case 4: // one that is in the room fell out of the window
			if from := m.log - min(m.log, n*5); m.log > 0 {
				v := &visitor{Replay: Refill[message](at(from)), from: from, joined: true}
				if from == 0 { // it came when there was no history
					v.Replay = Refill[message](adapter.Position{})
				}
				v.base = at(m.log)
				m.members = append(m.members, v)
			}
		case 5:
			m.read(n % 2)
		case 6:
			m.store.Widen(m.now)
			if n == 0 {
				m.now += int64(2 * time.Second)
			}
			m.store.Narrow(m.now, false, m.window)
		case 7:
			if len(m.members) > 0 {
				m.step(m.members[int(n)%len(m.members)])
			}
		}
	}
	for range 10_000 {
		if len(m.members) == 0 {
			return
		}
		m.read(0)
		m.step(m.members[0])
	}
	require.Empty(m, m.members, "they never come to the log")
}

func (m *model) catchUp(to uint64) {
	if m.log+1 < m.first {
		m.log = m.first - 1
		m.store.Reset(at(m.log))
	}
	for to = min(to, m.head); m.log < to; {
		m.log++
		m.store.Add(itemsOf(m.log, m.log), m.now, m.window)
	}
}

// read begins a reading, or ends one.
func (m *model) read(half uint64) {
	if m.reading == nil {
		if !m.store.Start() {
			return
		}
		since, ok := m.store.Begin(false)
		if !ok {
			return
		}
		m.since = since
		from := max(m.first, since.Offset+1)
		m.reading = &adapter.Page{Head: at(m.head), First: from}
		for n := 0; from <= m.head && n < 10; n++ { // frames of 7 messages, in pages of 10
			from = min(m.head, from+6) + 1
			m.reading.Frames = append(m.reading.Frames, adapter.KeptFrame{At: at(from - 1)})
		}
		m.reading.More = from <= m.head
		if half > 0 {
			return
		}
	}
	p := NewPage[message](m.since, m.reading)
	first := m.reading.First
	for _, f := range m.reading.Frames {
		p.Frame(first, f.At, false)
		for _, item := range itemsOf(first, f.At.Offset) {
			p.Add(item, m.now)
		}
		first = f.At.Offset + 1
	}
	p.End()
	m.reading = nil
	m.store.Remember(p, at(m.log), m.window)
	for _, r := range m.store.Deliver(p) {
		for _, v := range m.members {
			if v.wants == r {
				v.Deliver(r.Page)
				v.wants = nil
			}
		}
	}
}

// step has a member take its next part, if it is there.
func (m *model) step(v *visitor) {
	if v.wants != nil {
		return
	}
	switch verdict := m.store.Assemble(v.Replay, Log{At: at(m.log), Known: true}, m.keep, m.now); verdict {
	case NeedsReading:
		v.wants = m.store.Join(v.At())
	case LogBehind:
		m.catchUp(m.head)
	case Complete:
		if !v.joined {
			v.joined = true
			v.Begin(at(m.log))
		}
		m.take(v)
	default:
		require.Fail(m, "verdict", verdict)
	}
}

// take checks a part: it goes on where the last one ended, or says how many
// messages are missing there.
func (m *model) take(v *visitor) {
	if !v.begun && !v.newcomer {
		v.begun, v.next = true, v.from+1
	}
	gap := v.TakeGap()
	require.False(m, gap.Unknown)
	if v.begun {
		v.next += uint64(gap.Missed)
	} else {
		require.Zero(m, gap.Missed, "nothing is missing to a newcomer")
	}
	for _, item := range v.Items() {
		if !v.begun || v.newcomer && v.next <= v.base.Offset && item.at.Offset > v.next {
			v.begun, v.next = true, item.at.Offset // what was trimmed before it came
		}
		require.Equal(m, v.next, item.at.Offset)
		v.next++
	}
	v.Advance(len(v.Items()))
	if !v.Met() {
		return
	}
	if v.begun && !(v.newcomer && v.next <= v.base.Offset) {
		require.Equal(m, m.log+1, max(v.next, v.from+1), "the log goes on where the part ended")
	}
	for i := range m.members {
		if m.members[i] == v {
			m.members = append(m.members[:i], m.members[i+1:]...)
			return
		}
	}
}

// TestModel checks that members get each message after their position once and
// in order, or are told how many are missing, and then go on where the log
// does.
func TestModel(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 2))
		ops := make([]byte, 5+r.IntN(150))
		for i := range ops {
			ops[i] = byte(r.Uint32())
		}
		newModel(t).play(ops)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func FuzzModel(f *testing.F) {
	f.Add([]byte{200, 3, 200, 42, 11, 7, 5, 15})
	f.Add([]byte{248, 18, 68, 248, 7, 5, 5, 51, 7})
	f.Fuzz(func(t *testing.T, ops []byte) { newModel(t).play(ops) })
}
