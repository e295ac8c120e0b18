package fanout

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/history"
	"github.com/fanoutgo/fanout/internal/item"
)

func TestPatience(t *testing.T) {
	now := time.Unix(1000, 0)
	t.Run("doubles up to a bound, and ends", func(t *testing.T) {
		var p patience
		var waits []time.Duration
		at := now
		for {
			wait, giveUp := p.vain(at)
			if giveUp {
				break
			}
			waits = append(waits, wait)
			at = at.Add(wait)
		}
		ms := time.Millisecond
		require.Equal(t, []time.Duration{50 * ms, 100 * ms, 200 * ms, 400 * ms, 800 * ms, 800 * ms}, waits)
		require.LessOrEqual(t, at.Sub(now), doubtTime+lastDoubt)

		// From then on a frame costs one reading, and those are apart.
		require.Equal(t, doubtPause-ms, p.pause(at.Add(ms)))
		require.Zero(t, p.pause(at.Add(doubtPause)))
		_, giveUp := p.vain(at.Add(time.Second))
		require.True(t, giveUp)
		_, giveUp = p.vain(at.Add(time.Second + doubtMemory))
		require.False(t, giveUp, "it has forgotten")
	})
	t.Run("begins anew after progress", func(t *testing.T) {
		var p patience
		require.Zero(t, p.pause(now))
		for range 4 {
			p.vain(now)
		}
		p.progress()
		wait, giveUp := p.vain(now.Add(time.Hour))
		require.False(t, giveUp)
		require.Equal(t, firstDoubt, wait)
	})
}

// at is a position in epoch 1; entries are those from first to last.
func at(offset uint64) adapter.Position { return adapter.Position{Epoch: 1, Offset: offset} }

func entriesOf(first, last uint64) (list []item.Entry) {
	for n := first; n <= last; n++ {
		list = append(list, item.Entry{Data: []byte("data"), At: at(n)})
	}
	return list
}

func offsets(entries []item.Entry) (list []uint64) {
	for i := range entries {
		list = append(list, entries[i].At.Offset)
	}
	return list
}

func pageOf(since, first, last, head uint64) *page {
	p := &page{since: at(since), from: at(since), end: at(last), last: last == head, entries: entriesOf(first, last)}
	if since == 0 {
		p.since = adapter.Position{}
	}
	p.info = adapter.Page{Head: at(head), First: first}
	p.times = slices.Repeat([]int64{time.Now().UnixMilli()}, len(p.entries))
	return p
}

func TestRequests(t *testing.T) {
	begin := func(t *testing.T, q *requests, want uint64) {
		t.Helper()
		since, ok := q.begin(false)
		require.True(t, ok)
		require.Equal(t, at(want), since)
	}
	served := func(r *request) bool { return r.page != nil }
	t.Run("one reading serves those that are near", func(t *testing.T) {
		var q requests
		a, b, c := q.add(at(500)), q.add(at(100)), q.add(at(900))
		begin(t, &q, 100)
		q.deliver(pageOf(100, 101, 1000, 5000))
		require.True(t, served(a) && served(b) && served(c))
		_, ok := q.begin(false)
		require.False(t, ok)
	})
	t.Run("the oldest is served by the second reading at the latest", func(t *testing.T) {
		var q requests
		oldest := q.add(at(900))
		for n := range uint64(50) {
			q.add(at(1 + n))
		}
		begin(t, &q, 1)
		q.deliver(pageOf(1, 2, 100, 5000)) // the messages were long
		require.False(t, served(oldest))
		q.add(at(3))
		begin(t, &q, 900)
		q.deliver(pageOf(900, 901, 1000, 5000))
		require.True(t, served(oldest))
	})
	t.Run("those far behind do not come first", func(t *testing.T) {
		var q requests
		q.add(at(100_000))
		q.add(at(1))
		begin(t, &q, 100_000)
	})
	t.Run("a page from before the request says nothing about what is new", func(t *testing.T) {
		var q requests
		q.add(at(1))
		begin(t, &q, 1)
		late, inside := q.add(at(10)), q.add(at(5))
		q.deliver(pageOf(1, 2, 10, 10))
		require.False(t, served(late))
		require.True(t, served(inside))
		begin(t, &q, 10)
		q.deliver(pageOf(10, 11, 10, 10))
		require.True(t, served(late))
	})
	t.Run("who has gone is forgotten, and an error is for all", func(t *testing.T) {
		var q requests
		gone, stays := q.add(at(1)), q.add(at(2))
		q.drop(gone)
		begin(t, &q, 2)
		q.fail(ErrRefused)
		require.ErrorIs(t, stays.err, ErrRefused)
		<-stays.done
		require.NoError(t, gone.err)
	})
}

func TestTail(t *testing.T) {
	keep := Retention{Messages: 100_000, Age: time.Hour}
	w := Window{Messages: 8, Bytes: 1 << 20}
	now := time.Now().UnixMilli()
	fill := func(n uint64, wide bool) *tail {
		var tl tail
		tl.reset(at(0))
		for i := range n {
			tl.add(entriesOf(i+1, i+1), now, w, wide)
		}
		return &tl
	}
	// all follows the parts from a position to the end.
	all := func(t *testing.T, tl *tail, since, pos adapter.Position) (list []uint64) {
		t.Helper()
		for {
			p, ok := tl.next(since, pos, keep)
			require.True(t, ok)
			require.LessOrEqual(t, len(p.entries), chunkMessages)
			list = append(list, offsets(p.entries)...)
			if since = p.end; since == pos {
				return list
			}
		}
	}
	t.Run("holds a window and a chunk", func(t *testing.T) {
		tl := fill(10_000, false)
		require.LessOrEqual(t, tl.count, w.Messages+chunkMessages)
		require.Equal(t, offsets(entriesOf(9993, 10_000)), all(t, tl, at(9992), at(10_000)))
		_, ok := tl.next(at(100), at(10_000), keep)
		require.False(t, ok)
		_, ok = tl.next(adapter.Position{}, at(10_000), keep)
		require.False(t, ok, "the first are not there any more")
	})
	t.Run("is bounded when it is wide", func(t *testing.T) {
		tl := fill(10_000, true)
		require.Equal(t, 10_000, tl.count)
		require.Equal(t, offsets(entriesOf(101, 10_000)), all(t, tl, at(100), at(10_000)))
		require.Equal(t, offsets(entriesOf(1, 10_000)), all(t, tl, adapter.Position{}, at(10_000)))
		big := make([]byte, 1<<20)
		for n := range uint64(20) {
			tl.add([]item.Entry{{Data: big, At: at(10_001 + n)}}, now, w, true)
		}
		require.LessOrEqual(t, tl.bytes+tl.count*entryBytes, wideBytes)
		tl.cut(w, false)
		require.LessOrEqual(t, tl.bytes, w.Bytes)
	})
	t.Run("meets what was read", func(t *testing.T) {
		tl := fill(1000, false)
		tl.extend(pageOf(400, 401, 970, 970), at(1000), w, true)
		require.Equal(t, offsets(entriesOf(401, 1000)), all(t, tl, at(400), at(1000)))
		short := fill(1000, false)
		short.extend(pageOf(400, 401, 500, 1000), at(1000), w, true) // it ends too early
		_, ok := short.next(at(400), at(1000), keep)
		require.False(t, ok)
	})
}

func TestPage(t *testing.T) {
	t.Run("a newcomer has missed nothing", func(t *testing.T) {
		p := pageOf(0, 50, 60, 60)
		require.Zero(t, p.next(adapter.Position{}, true).gap)
		require.Equal(t, 49, p.next(adapter.Position{}, false).gap.Missed)
		require.Equal(t, 40, p.next(at(9), false).gap.Missed)
	})
	t.Run("what may be missing on the way is told in its place", func(t *testing.T) {
		p := pageOf(5, 6, 8, 8)
		later := entriesOf(9, 10)
		for i := range later {
			later[i].At.Epoch = 2
		}
		p.entries = append(p.entries, later...)
		p.end = adapter.Position{Epoch: 2, Offset: 10}
		p.info = adapter.Page{Head: p.end, First: 6, Before: []adapter.PastEpoch{{Epoch: 1, Last: 8}}}
		first := p.next(at(5), false)
		require.Zero(t, first.gap)
		require.Equal(t, []uint64{6, 7, 8}, offsets(first.entries))
		require.Equal(t, at(8), first.end)
		second := p.next(first.end, false)
		require.True(t, second.gap.Unknown)
		require.Equal(t, []uint64{9, 10}, offsets(second.entries))
		require.Equal(t, p.end, second.end)
		require.Equal(t, []uint64{6, 7, 8, 9, 10}, offsets(p.next(at(5), true).entries))
	})
	t.Run("a frame that cannot be read is a gap in its place", func(t *testing.T) {
		p := pageOf(5, 6, 8, 20)
		p.entries = append(p.entries, entriesOf(13, 14)...)
		p.end, p.bad = at(14), []badFrame{{8, at(12)}}
		first := p.next(at(5), false)
		require.Equal(t, []uint64{6, 7, 8}, offsets(first.entries))
		second := p.next(first.end, false)
		require.Equal(t, 4, second.gap.Missed)
		require.Equal(t, []uint64{13, 14}, offsets(second.entries))
		require.Equal(t, p.end, second.end)
	})
	t.Run("progress", func(t *testing.T) {
		frames := []adapter.KeptFrame{{At: at(6)}, {At: at(8)}}
		require.True(t, history.Progresses(&adapter.Page{}, at(5)))
		require.True(t, history.Progresses(&adapter.Page{Frames: frames, More: true}, at(5)))
		require.False(t, history.Progresses(&adapter.Page{More: true}, at(5)))
		require.False(t, history.Progresses(&adapter.Page{Frames: frames, More: true}, at(6)))
		require.False(t, history.Progresses(&adapter.Page{Frames: []adapter.KeptFrame{{At: at(8)}, {At: at(8)}}}, at(5)))
	})
}
