package replay

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/stretchr/testify/require"
)

// start is a time.
const start = int64(1000 * time.Hour)

var errRefused = errors.New("refused")

// at is a position in epoch 1; entries are those from first to last.
func at(offset uint64) adapter.Position { return adapter.Position{Epoch: 1, Offset: offset} }

// A message is an Item.
type message struct {
	at       adapter.Position
	size     int
	volatile bool
}

func (m message) Counts() bool            { return !m.volatile }
func (m message) Size() int               { return m.size }
func (m message) Place() adapter.Position { return m.at }

func itemsOf(first, last uint64) (list []message) {
	for n := first; n <= last; n++ {
		list = append(list, message{at: at(n), size: 4})
	}
	return list
}

func offsets(items []message) (list []uint64) {
	for i := range items {
		list = append(list, items[i].at.Offset)
	}
	return list
}

func pageOf(since, first, last, head uint64) *Page[message] {
	p := &Page[message]{since: at(since), from: at(since), end: at(last), last: last == head, items: itemsOf(first, last)}
	if since == 0 {
		p.since = adapter.Position{}
	}
	p.info = adapter.Page{Head: at(head), First: first}
	p.times = slices.Repeat([]int64{start}, len(p.items))
	return p
}

func TestReadings(t *testing.T) {
	begin := func(t *testing.T, q *Readings[message], want uint64) {
		t.Helper()
		since, ok := q.Begin(false)
		require.True(t, ok)
		require.Equal(t, at(want), since)
	}
	served := func(r *Request[message]) bool { return r.Page != nil }
	t.Run("one reading serves requests that are near", func(t *testing.T) {
		var q Readings[message]
		a, b, c := q.Join(at(500)), q.Join(at(100)), q.Join(at(900))
		begin(t, &q, 100)
		q.Deliver(pageOf(100, 101, 1000, 5000))
		require.True(t, served(a) && served(b) && served(c))
		_, ok := q.Begin(false)
		require.False(t, ok)
	})
	t.Run("the oldest is served by the second reading at the latest", func(t *testing.T) {
		var q Readings[message]
		oldest := q.Join(at(900))
		for n := range uint64(50) {
			q.Join(at(1 + n))
		}
		begin(t, &q, 1)
		q.Deliver(pageOf(1, 2, 100, 5000)) // the messages were long
		require.False(t, served(oldest))
		q.Join(at(3))
		begin(t, &q, 900)
		q.Deliver(pageOf(900, 901, 1000, 5000))
		require.True(t, served(oldest))
	})
	t.Run("requests that are far behind do not come first", func(t *testing.T) {
		var q Readings[message]
		q.Join(at(100_000))
		q.Join(at(1))
		begin(t, &q, 100_000)
	})
	t.Run("a page from before the request does not serve a request for newer messages", func(t *testing.T) {
		var q Readings[message]
		q.Join(at(1))
		begin(t, &q, 1)
		late, inside := q.Join(at(10)), q.Join(at(5))
		q.Deliver(pageOf(1, 2, 10, 10))
		require.False(t, served(late))
		require.True(t, served(inside))
		begin(t, &q, 10)
		q.Deliver(pageOf(10, 11, 10, 10))
		require.True(t, served(late))
	})
	t.Run("a request that has left is forgotten, and an error is for all", func(t *testing.T) {
		var q Readings[message]
		gone, stays := q.Join(at(1)), q.Join(at(2))
		q.Leave(gone)
		begin(t, &q, 2)
		require.Equal(t, []*Request[message]{stays}, q.Fail(errRefused))
		require.ErrorIs(t, stays.Err, errRefused)
		require.NoError(t, gone.Err)
	})
}

func TestRecent(t *testing.T) {
	keep := adapter.Retention{Messages: 100_000, Age: time.Hour}
	w := Window{Messages: 8, Bytes: 1 << 20}
	fill := func(n uint64, wide bool) *Recent[message] {
		var tl Recent[message]
		tl.Reset(at(0))
		for i := range n {
			tl.add(itemsOf(i+1, i+1), start, w, wide)
		}
		return &tl
	}
	// all follows the parts from a position to the end.
	all := func(t *testing.T, tl *Recent[message], since, pos adapter.Position) (list []uint64) {
		t.Helper()
		for {
			p, ok := tl.next(since, pos, true, keep, start)
			require.True(t, ok)
			require.LessOrEqual(t, len(p.items), chunkMessages)
			list = append(list, offsets(p.items)...)
			if since = p.end; since == pos {
				return list
			}
		}
	}
	t.Run("holds a window and a chunk", func(t *testing.T) {
		tl := fill(10_000, false)
		require.LessOrEqual(t, tl.count, w.Messages+chunkMessages)
		require.Equal(t, offsets(itemsOf(9993, 10_000)), all(t, tl, at(9992), at(10_000)))
		_, ok := tl.next(at(100), at(10_000), true, keep, start)
		require.False(t, ok)
		_, ok = tl.next(adapter.Position{}, at(10_000), true, keep, start)
		require.False(t, ok, "the first are gone")
	})
	t.Run("is bounded when it is wide", func(t *testing.T) {
		tl := fill(10_000, true)
		require.Equal(t, 10_000, tl.count)
		require.Equal(t, offsets(itemsOf(101, 10_000)), all(t, tl, at(100), at(10_000)))
		require.Equal(t, offsets(itemsOf(1, 10_000)), all(t, tl, adapter.Position{}, at(10_000)))
		for n := range uint64(20) {
			tl.add([]message{{at: at(10_001 + n), size: 1 << 20}}, start, w, true)
		}
		require.LessOrEqual(t, tl.bytes+tl.count*entryBytes, wideBytes)
		tl.cut(w, false)
		require.LessOrEqual(t, tl.bytes, w.Bytes)
	})
	t.Run("is extended by a page that reaches it", func(t *testing.T) {
		tl := fill(1000, false)
		tl.extend(pageOf(400, 401, 970, 970), at(1000), w, true)
		require.Equal(t, offsets(itemsOf(401, 1000)), all(t, tl, at(400), at(1000)))
		short := fill(1000, false)
		short.extend(pageOf(400, 401, 500, 1000), at(1000), w, true) // it ends too early
		_, ok := short.next(at(400), at(1000), true, keep, start)
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
	t.Run("messages that may be missing are a gap in their place", func(t *testing.T) {
		p := pageOf(5, 6, 8, 8)
		later := itemsOf(9, 10)
		for i := range later {
			later[i].at.Epoch = 2
		}
		p.items = append(p.items, later...)
		p.end = adapter.Position{Epoch: 2, Offset: 10}
		p.info = adapter.Page{Head: p.end, First: 6, Before: []adapter.PastEpoch{{Epoch: 1, Last: 8}}}
		first := p.next(at(5), false)
		require.Zero(t, first.gap)
		require.Equal(t, []uint64{6, 7, 8}, offsets(first.items))
		require.Equal(t, at(8), first.end)
		second := p.next(first.end, false)
		require.True(t, second.gap.Unknown)
		require.Equal(t, []uint64{9, 10}, offsets(second.items))
		require.Equal(t, p.end, second.end)
		require.Equal(t, []uint64{6, 7, 8, 9, 10}, offsets(p.next(at(5), true).items))
	})
	t.Run("a frame that cannot be read is a gap in its place", func(t *testing.T) {
		p := pageOf(5, 6, 8, 20)
		p.items = append(p.items, itemsOf(13, 14)...)
		p.end, p.bad = at(14), []hole{{8, at(12)}}
		first := p.next(at(5), false)
		require.Equal(t, []uint64{6, 7, 8}, offsets(first.items))
		second := p.next(first.end, false)
		require.Equal(t, 4, second.gap.Missed)
		require.Equal(t, []uint64{13, 14}, offsets(second.items))
		require.Equal(t, p.end, second.end)
	})
}
