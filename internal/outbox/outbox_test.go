package outbox

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

var start = time.UnixMilli(1_700_000_000_000)

// a tester drives an outbox as a hub does, on one goroutine.
type tester struct {
	t *testing.T
	Outbox[string]
	streams uint64
}

func newTester(t *testing.T) *tester { return &tester{t: t} }

func message(s string) *wire.Message { return &wire.Message{Data: []byte(s)} }

func (x *tester) add(f *Frame[string], s string) Span { return f.Add(message(s)) }

// gather adds a message to what is pending.
func (x *tester) gather(s string) (*Frame[string], Span) {
	m := message(s)
	f := x.Gather(m.Size())
	return f, f.Add(m)
}

// alone begins with a frame of its own.
func (x *tester) alone(s string) *Frame[string] {
	x.t.Helper()
	require.True(x.t, x.Begin())
	f := NewFrame[string](len(s))
	x.add(f, s)
	return x.number(f)
}

func (x *tester) number(f *Frame[string]) *Frame[string] {
	x.Number(f, 7, func() uint64 { x.streams++; return x.streams }, start)
	return f
}

// read decodes a frame: its stream, first number and messages.
func (x *tester) read(f *Frame[string]) (stream, seq uint64, said []string) {
	x.t.Helper()
	head, d, err := wire.Decode(f.Bytes())
	require.NoError(x.t, err)
	var v wire.View
	for d.Next(&v) {
		said = append(said, string(v.Data))
	}
	require.Len(x.t, said, head.Count)
	return head.Stream, head.Seq, said
}

func (x *tester) requireFrame(f *Frame[string], seq uint64, said ...string) {
	x.t.Helper()
	_, gotSeq, got := x.read(f)
	require.Equal(x.t, said, got)
	require.Equal(x.t, seq, gotSeq)
}

func TestOutboxStates(t *testing.T) {
	x := newTester(t)
	require.Equal(t, Idle, x.State())
	f := x.alone("a")
	require.Equal(t, Sending, x.State())
	require.False(t, x.Begin(), "one frame at a time is under way")
	x.Done(f, Taken)
	next, expired := x.Next(start)
	require.Nil(t, next)
	require.Empty(t, expired)
	require.Equal(t, Idle, x.State())
}

func TestOutboxGathers(t *testing.T) {
	t.Run("messages that come meanwhile go together", func(t *testing.T) {
		x := newTester(t)
		f := x.alone("a")
		x.gather("b")
		x.gather("c")
		x.requireFrame(f, 1, "a")
		x.Done(f, Taken)
		f, _ = x.Next(start)
		x.requireFrame(x.number(f), 2, "b", "c")
		require.Equal(t, 2, f.Count())
		require.True(t, f.Begun())
	})
	t.Run("up to MaxFrame", func(t *testing.T) {
		x := newTester(t)
		x.alone("a")
		half := string(make([]byte, MaxFrame/2-10))
		one, _ := x.gather(half)
		two, _ := x.gather(half)
		three, _ := x.gather(half)
		require.Same(t, one, two)
		require.NotSame(t, one, three)
	})
	t.Run("a larger message alone, in its place", func(t *testing.T) {
		x := newTester(t)
		x.Done(x.alone("a"), Taken)
		x.gather("b")
		x.gather(string(make([]byte, 2*MaxFrame)))
		x.gather("c")
		for _, n := range []int{1, 1, 1} {
			f, _ := x.Next(start)
			require.Equal(t, n, f.Count())
			x.Done(x.number(f), Taken)
		}
	})
}

func TestOutboxWithdraw(t *testing.T) {
	t.Run("others keep their places", func(t *testing.T) {
		x := newTester(t)
		x.Done(x.alone("a"), Taken)
		b, atB := x.gather("b")
		x.gather("cc")
		d, atD := x.gather("ddd")
		x.gather("e")
		require.True(t, x.Withdraw(d, atD))
		require.True(t, x.Withdraw(b, atB))
		f, _ := x.Next(start)
		x.requireFrame(x.number(f), 2, "cc", "e")
	})
	t.Run("of all leaves nothing to send", func(t *testing.T) {
		x := newTester(t)
		x.Done(x.alone("a"), Taken)
		b, at := x.gather("b")
		require.True(t, x.Withdraw(b, at))
		f, _ := x.Next(start)
		require.Nil(t, f)
		require.Equal(t, Idle, x.State())
	})
	t.Run("of all and a new one sends the new one", func(t *testing.T) {
		x := newTester(t)
		x.Done(x.alone("a"), Taken)
		b, at := x.gather("b")
		require.True(t, x.Withdraw(b, at))
		x.gather("c")
		f, _ := x.Next(start)
		x.requireFrame(x.number(f), 2, "c")
	})
	t.Run("comes too late for a frame that is under way", func(t *testing.T) {
		x := newTester(t)
		x.Done(x.alone("a"), Taken)
		b, at := x.gather("b")
		f, _ := x.Next(start)
		require.False(t, x.Withdraw(b, at))
		x.requireFrame(x.number(f), 2, "b")
	})
}

func TestOutboxNumbers(t *testing.T) {
	for _, c := range []struct {
		name   string
		result Result
		next   uint64
	}{
		{"of what was taken are used up", Taken, 3},
		{"of what nobody can have seen are used again", Unsent, 1},
		{"of what may have arrived are burnt", Uncertain, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newTester(t)
			require.True(t, x.Begin())
			f := NewFrame[string](2)
			x.add(f, "a")
			x.add(f, "b")
			x.Done(x.number(f), c.result)
			x.gather("c")
			f, _ = x.Next(start)
			x.requireFrame(x.number(f), c.next, "c")
		})
	}
	t.Run("go on after Restore", func(t *testing.T) {
		x := newTester(t)
		x.Restore(5, 100)
		f := x.alone("a")
		stream, seq, _ := x.read(f)
		require.Equal(t, []uint64{5, 100}, []uint64{stream, seq})
		x.Done(f, Taken)
		stream, next := x.Numbers()
		require.Equal(t, []uint64{5, 101}, []uint64{stream, next})
		require.Zero(t, x.streams, "no new stream was needed")
	})
	t.Run("are zero before the first frame", func(t *testing.T) {
		stream, next := newTester(t).Numbers()
		require.Zero(t, stream)
		require.Zero(t, next)
	})
}

func TestOutboxExpires(t *testing.T) {
	x := newTester(t)
	x.Done(x.alone("a"), Taken)
	big := string(make([]byte, MaxFrame)) // so that each has a frame of its own
	one, _ := x.gather(big)
	one.Expire(start.Add(time.Second))
	one.Expire(start.Add(time.Hour)) // the first publisher's holds
	two, _ := x.gather(big)
	two.Expire(start.Add(time.Second))
	three, _ := x.gather(big)
	f, expired := x.Next(start.Add(time.Second))
	require.Equal(t, []*Frame[string]{one, two}, expired)
	require.Same(t, three, f)
	for _, f := range expired {
		x.Done(x.number(f), Unsent)
	}
	_, seq, _ := x.read(x.number(f))
	require.EqualValues(t, 2, seq, "numbers of what was not sent are used again")

	x.Done(f, Taken)
	four, _ := x.gather("d")
	four.Expire(start)
	f, expired = x.Next(start)
	require.Nil(t, f)
	require.Len(t, expired, 1)
	require.Equal(t, Sending, x.State(), "the turn lasts until the expired are settled")
	f, expired = x.Next(start)
	require.Nil(t, f)
	require.Empty(t, expired)
	require.Equal(t, Idle, x.State())
}

// Whatever publishers and the backend do, each message that was not withdrawn
// is sent in order, and numbers are contiguous but for those that are burnt.
func TestOutboxProperties(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 2))
		x := newTester(t)
		type pending struct {
			frame *Frame[string]
			at    Span
			said  string
		}
		var waiting []pending
		var under *Frame[string]
		var want, got []string // of frames that were handed out
		next := uint64(1)
		n := 0
		for range 200 {
			switch random.IntN(4) {
			case 0, 1:
				n++
				said := fmt.Sprint(n, string(make([]byte, random.IntN(20_000))))
				if x.Begin() {
					under = NewFrame[string](0)
					x.add(under, said)
					want = append(want, said)
				} else {
					f, at := x.gather(said)
					waiting = append(waiting, pending{f, at, said})
				}
			case 2:
				if len(waiting) > 0 {
					i := random.IntN(len(waiting))
					require.True(t, x.Withdraw(waiting[i].frame, waiting[i].at))
					waiting = slices.Delete(waiting, i, i+1)
				}
			case 3:
				if under == nil {
					continue
				}
				_, seq, said := x.read(x.number(under))
				require.Equal(t, next, seq)
				got = append(got, said...)
				result := Result(random.IntN(3))
				x.Done(under, result)
				if result != Unsent {
					next += uint64(len(said))
				}
				under, _ = x.Next(start)
				for len(waiting) > 0 && waiting[0].frame == under {
					want = append(want, waiting[0].said)
					waiting = waiting[1:]
				}
				require.Equal(t, under == nil, x.State() == Idle)
			}
		}
		if under != nil {
			_, _, said := x.read(x.number(under))
			got = append(got, said...)
		}
		require.Equal(t, want, got, "seed %d", seed)
	}
}

func TestNotice(t *testing.T) {
	t.Run("has its turn alone, and no number", func(t *testing.T) {
		x := newTester(t)
		x.Done(x.alone("a"), Taken)
		x.gather("b")
		notice := NewNotice[string]([]byte("notice"))
		require.True(t, notice.Notice())
		x.Queue(notice)
		x.gather("c")
		f, _ := x.Next(start)
		x.requireFrame(x.number(f), 2, "b")
		x.Done(f, Taken)
		f, _ = x.Next(start)
		require.Same(t, notice, f)
		require.Equal(t, "notice", string(x.number(f).Bytes()))
		require.Equal(t, start, f.Numbered())
		x.Done(f, Taken)
		f, _ = x.Next(start)
		x.requireFrame(x.number(f), 3, "c")
	})
	t.Run("may be withdrawn", func(t *testing.T) {
		x := newTester(t)
		x.Done(x.alone("a"), Taken)
		notice := NewNotice[string]([]byte("notice"))
		x.Queue(notice)
		require.True(t, x.Withdraw(notice, Span{}))
		f, _ := x.Next(start)
		require.Nil(t, f)
	})
}
