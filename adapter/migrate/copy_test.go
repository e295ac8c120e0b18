package migrate_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/adapter/migrate"
	"github.com/stretchr/testify/require"
)

const copied = "fanout:r:{room}"

// flippedAdapter returns an adapter without a hub that has flipped. It closes
// with the test.
func flippedAdapter(t *testing.T, from, to *memory.Bus) *migrate.Adapter {
	a, err := migrate.New("test", from.NewAdapter(), to.NewAdapter(), nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = a.Close(context.Background()) })
	require.NoError(t, a.Attach(nobody{}))
	return a
}

// keepOne appends a frame of some messages to a bus, and returns it with its
// position.
func keepOne(t *testing.T, b *memory.Bus, text string, messages int, keep adapter.Retention) adapter.KeptFrame {
	a := b.NewAdapter()
	defer a.Close(context.Background())
	r := adapter.Record{Frame: []byte(text), Messages: messages, Keep: keep, Time: time.Now()}
	at, _, err := a.Append(t.Context(), copied, r)
	require.NoError(t, err)
	return adapter.KeptFrame{At: at, Frame: r.Frame}
}

func readCopy(t *testing.T, h adapter.Historian, keep adapter.Retention) adapter.Page {
	page, err := h.History(t.Context(), copied, adapter.Query{Limit: 1000, Keep: keep, Time: time.Now()})
	require.NoError(t, err)
	for i := range page.Frames {
		page.Frames[i].Age = 0
	}
	return page
}

func TestCopy(t *testing.T) {
	keep := adapter.Retention{Messages: 100, Age: time.Hour}
	inBubble(t, "frames may be anything, and have the messages that they had", func(t *testing.T) {
		for _, kept := range []int{100, 9, 8, 7} { // 9: the first two are trimmed; 8: the third one begins outside
			from, to := memory.NewBus(), memory.NewBus()
			keep := adapter.Retention{Messages: kept, Age: time.Hour}
			for i, messages := range []int{2, 1, 3, 2, 4} {
				keepOne(t, from, fmt.Sprintf("frame %d", i), messages, keep)
			}
			old := from.NewAdapter()
			want := readCopy(t, old, keep)
			require.NoError(t, old.Close(t.Context()))
			writeNote(t, to)
			time.Sleep(time.Second)
			page := readCopy(t, flippedAdapter(t, from, to), keep)
			require.Equal(t, want.Frames, page.Frames)
			require.Equal(t, want.First, page.First)
		}
	})
	inBubble(t, "another hub copies, and the old backend trims meanwhile", copyTrimmed)
	inBubble(t, "the old backend begins a new history meanwhile", func(t *testing.T) {
		from, to := memory.NewBus(), memory.NewBus()
		var want []adapter.KeptFrame
		for i := range 20 {
			want = append(want, keepOne(t, from, fmt.Sprintf("frame %d", i), 1, keep))
		}
		writeNote(t, to)
		time.Sleep(time.Second)
		var appended atomic.Int32
		to.Intercept(func(_ context.Context, f memory.Frame) memory.Fate {
			if f.Channel == copied && appended.Add(1) == 10 {
				from.Flush()
				keepOne(t, from, "of a hub that does not know of the flip", 1, keep)
				time.Sleep(6 * time.Second) // the claim is no longer certain, and the page is read again
			}
			return memory.Fate{}
		})
		a := flippedAdapter(t, from, to)
		page := readCopy(t, a, keep)
		require.Equal(t, want[:10], page.Frames[:10])
		for i, f := range page.Frames[10:] {
			require.Greater(t, f.At.Offset, page.Frames[9+i].At.Offset)
		}
		require.EqualValues(t, 20, page.Head.Offset)
	})
}

// Two hubs fill the place of what the old backend no longer has. The second one
// finds that more has expired, and its filler arrives after that of the first.
func copyTrimmed(t *testing.T) {
	from, to := memory.NewBus(), memory.NewBus()
	keep := adapter.Retention{Messages: 100, Age: 30 * time.Second}
	var want []adapter.KeptFrame
	for i := range 50 {
		want = append(want, keepOne(t, from, fmt.Sprintf("frame %d", i), 1, keep))
		time.Sleep(time.Second)
	}
	writeNote(t, to)
	var appended atomic.Int32
	to.Intercept(func(_ context.Context, f memory.Frame) memory.Fate {
		if f.Channel == copied {
			switch appended.Add(1) {
			case 1: // the claim ends meanwhile
				time.Sleep(12 * time.Second)
			case 2:
				time.Sleep(4 * time.Second)
			}
		}
		return memory.Fate{}
	})
	one, two := flippedAdapter(t, from, to), flippedAdapter(t, from, to)
	first := make(chan error, 1)
	go func() {
		_, err := one.History(t.Context(), copied, adapter.Query{Keep: keep, Time: time.Now()})
		first <- err
	}()
	time.Sleep(time.Second)
	page := readCopy(t, two, keep)
	require.NoError(t, <-first)
	require.NotEmpty(t, page.Frames)
	begin := slices.IndexFunc(want, func(f adapter.KeptFrame) bool { return f.At == page.Frames[0].At })
	require.Equal(t, want[begin:], page.Frames)
	require.Greater(t, begin, 25)
	require.EqualValues(t, begin+1, page.First)
}
