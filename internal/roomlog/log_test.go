package roomlog

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type item struct {
	n        int
	data     []byte
	volatile bool
}

func (i item) Counts() bool { return !i.volatile }
func (i item) Size() int    { return len(i.data) }

// sleeper is an owner that counts its wake-ups.
type sleeper struct{ woken atomic.Int32 }

func (s *sleeper) Wake() { s.woken.Add(1) }

func newLog(items, bytes int, p Policy) *Log[item, Owner] {
	l := new(Log[item, Owner])
	l.Init(NewLimits[item](items, bytes, p))
	return l
}

func open(l *Log[item, Owner]) *Cursor[item, Owner] {
	c := new(Cursor[item, Owner])
	l.Open(c, &sleeper{})
	return c
}

func say(l *Log[item, Owner], ns ...int) {
	var items []item
	for _, n := range ns {
		items = append(items, item{n: n, data: make([]byte, 10)})
	}
	l.Append(Gap{}, items).Wake(1 << 30)
}

// readAll reads to the end: items as numbers, gaps as "-n" and "?".
func readAll(c *Cursor[item, Owner]) (out []string) {
	for {
		items, _, gap := c.Peek()
		switch {
		case gap:
			g := c.TakeGap(0)
			s := fmt.Sprintf("-%d", g.Missed)
			if g.Unknown {
				s += "?"
			}
			out = append(out, s)
		case items == nil:
			return out
		default:
			out = append(out, fmt.Sprint(items[0].n))
			c.Advance(1)
		}
	}
}

func TestEveryCursorReadsEverythingFromItsOpening(t *testing.T) {
	l := newLog(100, 1<<20, Oldest)
	a := open(l)
	say(l, 1)
	b := open(l)
	say(l, 2, 3)
	require.Equal(t, []string{"1", "2", "3"}, readAll(a))
	require.Equal(t, []string{"2", "3"}, readAll(b))
	say(l, 4)
	require.Equal(t, []string{"4"}, readAll(a))
	require.Equal(t, []string{"4"}, readAll(b))
}

func TestCursorOutOfWindowLearnsTheExactNumberOnce(t *testing.T) {
	l := newLog(4, 1<<20, Oldest)
	c := open(l)
	for n := 1; n <= 10; n++ {
		say(l, n)
	}
	require.Equal(t, []string{"-6", "7", "8", "9", "10"}, readAll(c))
	say(l, 11)
	require.Equal(t, []string{"11"}, readAll(c))
}

func TestWindowIsBoundedInBytes(t *testing.T) {
	l := newLog(1000, 35, Oldest)
	c := open(l)
	for n := 1; n <= 10; n++ {
		say(l, n)
	}
	require.Equal(t, []string{"-7", "8", "9", "10"}, readAll(c))
}

func TestNewestPolicyJumpsToTheNewest(t *testing.T) {
	l := newLog(8, 1<<20, Newest)
	c := open(l)
	for n := 1; n <= 10; n++ {
		say(l, n)
	}
	require.Equal(t, []string{"-9", "10"}, readAll(c))

	c = open(l)
	say(l, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11) // segments of two: the newest is [11]
	say(l, 12, 13)
	require.Equal(t, []string{"-12", "13"}, readAll(c))
}

func TestGapIsMetAtItsPlaceInTheOrder(t *testing.T) {
	l := newLog(100, 1<<20, Oldest)
	c := open(l)
	say(l, 1)
	l.Append(Gap{Missed: 3}, []item{{n: 5}})
	l.Append(Gap{Unknown: true}, nil)
	say(l, 6)
	require.Equal(t, []string{"1", "-3", "5", "-0?", "6"}, readAll(c))
}

func TestGapThatLeftTheWindowIsCountedInTheCursorsGap(t *testing.T) {
	l := newLog(4, 1<<20, Oldest)
	c := open(l)
	say(l, 1)
	l.Append(Gap{Missed: 3, Unknown: true}, nil)
	for n := 5; n <= 10; n++ {
		say(l, n)
	}
	require.Equal(t, []string{"-6?", "7", "8", "9", "10"}, readAll(c))
}

func TestCursorFallsBackBeforeAGapThatTheWindowHasLeft(t *testing.T) {
	for _, known := range []Gap{{Missed: 3}, {Missed: 3, Unknown: true}, {Missed: 3, From: 1, Until: 3}} {
		l := newLog(4, 1<<20, Oldest)
		c := open(l)
		l.AppendAfter(known, Gap{}, nil)
		_, _, gap := c.Peek()
		require.True(t, gap)
		require.False(t, c.FallBack(), "what comes after the gap is in the window")
		say(l, 1, 2)
		require.False(t, c.FallBack())
		require.False(t, c.Cut())
		say(l, 3, 4, 5, 6)
		require.True(t, c.FallBack())
		require.True(t, c.Cut())
		require.Equal(t, Gap{Missed: 3 + 6, Unknown: known.Unknown}, c.ToEnd(1))
		require.False(t, c.FallBack())
	}
}

func TestFind(t *testing.T) {
	l := newLog(4, 1<<20, Oldest)
	c := open(l)
	at := func(n int) int {
		i, ok := c.Find(func(i *item) bool { return i.n >= n })
		if !ok {
			return 0
		}
		return i.n
	}
	require.Zero(t, at(1))
	say(l, 1)
	l.Append(Gap{Missed: 1}, nil)
	say(l, 2, 3)
	require.Equal(t, []int{1, 3, 0}, []int{at(1), at(3), at(4)})
	_, _, _ = c.Peek()
	c.Advance(1)
	require.Equal(t, 2, at(1))
	say(l, 4, 5, 6, 7, 8, 9)
	require.Zero(t, at(1), "the cursor has fallen out of the window")
}

func TestItemsThatDoNotCountAreNotMissed(t *testing.T) {
	l := newLog(4, 1<<20, Oldest)
	c := open(l)
	for n := 1; n <= 10; n++ {
		l.Append(Gap{}, []item{{n: n, volatile: n%2 == 0}})
	}
	require.Equal(t, []string{"-3", "7", "8", "9", "10"}, readAll(c))
}

func TestFreshMeansEverythingBeforeWasReadWhenItCame(t *testing.T) {
	l := newLog(400, 1<<20, Oldest)
	c := open(l)
	fresh := func() bool {
		items, fresh, _ := c.Peek()
		require.NotEmpty(t, items)
		c.Advance(1)
		return fresh
	}
	say(l, 1)
	say(l, 2)
	require.True(t, fresh())
	require.False(t, fresh(), "2 came while 1 was unread")
	say(l, 3)
	require.True(t, fresh())
	var many []int
	for n := range 100 { // more than a segment holds
		many = append(many, n)
	}
	say(l, many...)
	for range many {
		require.True(t, fresh(), "one append is one arrival")
	}
}

func TestAppendMore(t *testing.T) {
	many := func(from, to int) (items []item) {
		for n := from; n < to; n++ {
			items = append(items, item{n: n})
		}
		return items
	}
	t.Run("is the same arrival", func(t *testing.T) {
		l := newLog(400, 1<<20, Oldest)
		inTime, late := open(l), open(l)
		say(l, 0)
		readAll(inTime)
		l.Append(Gap{}, many(1, 40))
		l.AppendMore(Gap{}, many(40, 80))
		l.Append(Gap{}, many(80, 81))
		for n := 1; n <= 80; n++ {
			items, fresh, _ := inTime.Peek()
			require.Equal(t, n, items[0].n)
			require.Equal(t, n < 80, fresh, "item %d", n)
			inTime.Advance(1)
		}
		for n := 0; n <= 80; n++ {
			_, fresh, _ := late.Peek()
			require.Equal(t, n == 0, fresh, "item %d", n)
			late.Advance(1)
		}
	})
	t.Run("goes on when what was there has been read", func(t *testing.T) {
		l := newLog(400, 1<<20, Oldest)
		c := open(l)
		l.Append(Gap{}, many(0, 1))
		readAll(c)
		require.True(t, c.Park())
		woken := l.AppendMore(Gap{}, many(1, 2))
		require.False(t, woken.None())
		_, fresh, _ := c.Peek()
		require.True(t, fresh)
	})
	t.Run("wakes each once", func(t *testing.T) {
		l := newLog(400, 1<<20, Oldest)
		a, b := open(l), open(l)
		require.True(t, a.Park())
		woken := l.Append(Gap{}, many(0, 1))
		readAll(b)
		require.True(t, b.Park())
		woken.Join(l.AppendMore(Gap{}, many(1, 2))).Join(l.AppendMore(Gap{}, many(2, 3))).Wake(1 << 30)
		require.EqualValues(t, 1, a.owner.(*sleeper).woken.Load())
		require.EqualValues(t, 1, b.owner.(*sleeper).woken.Load())
	})
}

func TestPassOver(t *testing.T) {
	for _, p := range []Policy{Oldest, Newest, Track} {
		l := newLog(4, 1<<20, p)
		idle, late := open(l), open(l)
		say(l, 1, 2)
		readAll(idle)
		require.True(t, idle.Park())
		l.PassOver(Gap{}, Gap{Missed: 3, Unknown: true}, 100).Wake(1 << 30)
		require.EqualValues(t, 1, idle.owner.(*sleeper).woken.Load())
		kept, bytes := l.Kept()
		require.Zero(t, kept)
		require.Zero(t, bytes)
		require.False(t, idle.AtEnd())
		if p == Track {
			require.True(t, late.Overrun(l.OldestKept()))
		}
		l.AppendMore(Gap{}, []item{{n: 103}})
		require.Equal(t, []string{"-103?", "103"}, readAll(idle))
		require.Equal(t, []string{"-105?", "103"}, readAll(late))
		say(l, 104)
		require.Equal(t, []string{"104"}, readAll(idle))
		idle.Close()
		late.Close()
	}
	l := newLog(4, 1<<20, Oldest)
	require.True(t, l.PassOver(Gap{}, Gap{}, 100).None())
	c := open(l)
	require.Empty(t, readAll(c), "nobody was there")
	l.PassOver(Gap{}, Gap{}, 100)
	require.Equal(t, []string{"-100"}, readAll(c))
	require.True(t, c.Park())
	c.Close()
}

func TestPassed(t *testing.T) {
	l := newLog(8, 1<<20, Oldest)
	c := open(l)
	require.True(t, c.Passed(l.Mark()), "there is nothing")
	say(l, 1, 2)
	mark := l.Mark()
	require.False(t, c.Passed(mark))
	c.Peek()
	c.Advance(1)
	require.False(t, c.Passed(mark))
	l.Append(Gap{}, []item{{n: 3, volatile: true}})
	c.Advance(1)
	require.False(t, c.Passed(l.Mark()), "the volatile item is unread")
	c.Peek()
	c.Advance(1)
	require.True(t, c.Passed(l.Mark()))

	mark = l.Mark()
	for n := range 20 {
		say(l, n)
	}
	require.False(t, c.Passed(l.Mark()), "it has fallen out of the window")
	require.Equal(t, Gap{Missed: 12}, func() Gap { c.Peek(); return c.TakeGap(0) }())
	require.True(t, c.Passed(mark))
	require.False(t, c.Passed(l.Mark()))
}

func TestParkedCursorIsWokenOnceAndAnAwakeOneNever(t *testing.T) {
	l := newLog(100, 1<<20, Oldest)
	a, b := open(l), open(l)
	require.True(t, a.Park())
	say(l, 1)
	say(l, 2)
	require.EqualValues(t, 1, a.owner.(*sleeper).woken.Load())
	require.EqualValues(t, 0, b.owner.(*sleeper).woken.Load())
	require.False(t, b.Park(), "there is something to read")
	readAll(a)
	require.True(t, a.Park())
	a.Close()
	say(l, 3)
	require.EqualValues(t, 1, a.owner.(*sleeper).woken.Load())
}

func TestLogHoldsNothingWhenAllHaveReadAndParked(t *testing.T) {
	l := newLog(100, 1<<20, Oldest)
	a, b := open(l), open(l)
	say(l, 1, 2, 3)
	items, _ := l.Kept()
	require.Equal(t, 3, items)
	readAll(a)
	a.Park()
	items, _ = l.Kept()
	require.Equal(t, 3, items, "b has not read")
	readAll(b)
	require.True(t, b.Park())
	items, bytes := l.Kept()
	require.Zero(t, items)
	require.Zero(t, bytes)

	say(l, 4)
	readAll(a)
	a.Park()
	b.Close()
	items, _ = l.Kept()
	require.Zero(t, items, "the one that lagged is gone")
	say(l, 5)
	a.Close()
	items, _ = l.Kept()
	require.Zero(t, items)
	say(l, 6)
	items, _ = l.Kept()
	require.Zero(t, items, "nobody is there")
}

func TestReadersLeavingAndComingDoNotLetAStuckCursorHoldTheChain(t *testing.T) {
	l := newLog(10, 1<<20, Oldest)
	stuck := open(l)
	for n := range 1000 {
		a := open(l)
		say(l, n)
		readAll(a)
		a.Close()
	}
	got := readAll(stuck)
	require.Equal(t, "-990", got[0])
	require.Len(t, got, 11)
}

func TestStuckCursorDoesNotKeepTheChainAlive(t *testing.T) {
	const size = 64 << 10
	l := newLog(4, 1<<30, Oldest)
	stuck, reader := open(l), open(l)
	var freed atomic.Int32
	const total = 200
	for n := range total {
		data := make([]byte, size)
		runtime.AddCleanup(&data[0], func(int) { freed.Add(1) }, 0)
		l.Append(Gap{}, []item{{n: n, data: data}})
		readAll(reader)
	}
	require.Eventually(t, func() bool {
		runtime.GC()
		return freed.Load() >= total-4
	}, 10e9, 1e6, "%d of %d freed", freed.Load(), total)
	runtime.KeepAlive(stuck)
}

func TestReadUpCursorKeepsNothingAlive(t *testing.T) {
	l := newLog(100, 1<<30, Oldest)
	c := open(l)
	var freed atomic.Int32
	for n := range 50 {
		data := make([]byte, 4<<10)
		runtime.AddCleanup(&data[0], func(int) { freed.Add(1) }, 0)
		l.Append(Gap{}, []item{{n: n, data: data}})
	}
	readAll(c)
	require.True(t, c.Park())
	require.Eventually(t, func() bool { runtime.GC(); return freed.Load() == 50 }, 10e9, 1e6)
	runtime.KeepAlive(c)
	runtime.KeepAlive(l)
}

func TestOverrunIsKnownBeforeTheCursorMoves(t *testing.T) {
	l := newLog(4, 1<<20, Track)
	stuck, reader := open(l), open(l)
	for n := range 4 {
		say(l, n)
		readAll(reader)
	}
	require.False(t, stuck.Overrun(l.OldestKept()))
	say(l, 5)
	readAll(reader)
	require.True(t, stuck.Overrun(l.OldestKept()))
	require.False(t, reader.Overrun(l.OldestKept()))
}

// Readers of random speed, with one appender: for each, received + missed is
// what was appended, in order.
func TestReceivedAndMissedIsWhatWasAppended(t *testing.T) {
	for _, p := range []Policy{Oldest, Newest, Track} {
		l := newLog(16, 1<<20, p)
		const total, readers = 20000, 8
		var wg sync.WaitGroup
		for r := range readers {
			wake := make(chan struct{}, 1)
			c := new(Cursor[item, Owner])
			l.Open(c, chanOwner(wake))
			wg.Go(func() {
				seen := 0
				for seen < total {
					items, _, gap := c.Peek()
					switch {
					case gap:
						seen += c.TakeGap(0).Missed
					case items == nil:
						if c.Park() {
							<-wake
						}
					default:
						n := min(len(items), 1+r)
						for _, it := range items[:n] {
							if it.n != seen {
								t.Errorf("reader %d got %d, wanted %d", r, it.n, seen)
								return
							}
							seen++
						}
						c.Advance(n)
						if r%2 == 0 && seen%7 == 0 {
							runtime.Gosched()
						}
					}
				}
				if !c.Park() {
					t.Errorf("reader %d has read everything and does not park", r)
				}
			})
		}
		for n := 0; n < total; {
			var batch []item
			for range min(1+rand.IntN(6), total-n) {
				batch = append(batch, item{n: n})
				n++
			}
			l.Append(Gap{}, batch).Wake(1 << 30)
		}
		wg.Wait()
		items, _ := l.Kept()
		require.Zero(t, items)
	}
}

type chanOwner chan struct{}

func (c chanOwner) Wake() { c <- struct{}{} }

// A gap in the middle of an arrival stands in its place.
func TestAppendMoreWithAGap(t *testing.T) {
	l := newLog(100, 1<<20, Oldest)
	c := open(l)
	l.Append(Gap{}, []item{{n: 0}, {n: 1}})
	l.AppendMore(Gap{Missed: 3}, []item{{n: 2}, {n: 3}})
	items, fresh, gap := c.Peek()
	require.Len(t, items, 2)
	require.True(t, fresh)
	require.False(t, gap)
	c.Advance(2)
	_, _, gap = c.Peek()
	require.True(t, gap)
	require.Equal(t, Gap{Missed: 3}, c.TakeGap(1))
	items, fresh, gap = c.Peek()
	require.Len(t, items, 2)
	require.True(t, fresh, "it came with the first")
	require.False(t, gap)
}
