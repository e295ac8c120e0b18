package history

import (
	"math"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/stretchr/testify/require"
)

func at(epoch, offset uint64) adapter.Position {
	return adapter.Position{Epoch: epoch, Offset: offset}
}

// page is a history that is at offset 70 of epoch 9, and lost what epoch 1 had
// after 40. Offsets from first on are kept.
func page(first uint64) *adapter.Page {
	return &adapter.Page{
		Head:   at(9, 70),
		Before: []adapter.PastEpoch{{Epoch: 1, Last: 40}, {Epoch: 7, Last: 55, Whole: true}},
		First:  first,
	}
}

func TestCompare(t *testing.T) {
	began := &adapter.Page{Head: at(9, 5), First: 3}
	for _, c := range []struct {
		name  string
		page  *adapter.Page
		since adapter.Position
		want  After
	}{
		{"the head", page(71), at(9, 70), After{Epoch: 9, From: 70}},
		{"within what is kept", page(61), at(9, 65), After{Epoch: 9, From: 65}},
		{"just before what is kept", page(61), at(9, 60), After{Epoch: 9, From: 60}},
		{"some of it is trimmed", page(61), at(9, 58), After{Epoch: 9, From: 60, Missed: 2}},
		{"a past epoch", page(41), at(7, 50), After{Epoch: 7, From: 50}},
		{"a past epoch, trimmed", page(61), at(7, 50), After{Epoch: 7, From: 60, Missed: 10}},
		{"beyond what the history has of an epoch", page(41), at(1, 48), After{Epoch: 1, From: 40, Lost: true}},
		{"beyond the head", page(61), at(9, 99), After{Epoch: 9, From: 70, Lost: true}},
		{"an epoch that it has not been in", page(61), at(5, 10), After{Epoch: 9, From: 60, Lost: true, Unplaced: true}},
		{"the beginning", page(61), adapter.Position{}, After{Epoch: 9, From: 60}},
		{"before a history that has begun anew", began, at(2, 30), After{Epoch: 9, From: 2, Missed: 2, Lost: true}},
		{"an absurd first offset", page(math.MaxUint64), at(9, 60), After{Epoch: 9, From: 70, Missed: 10}},
		{"no history", &adapter.Page{First: 1}, at(9, 60), After{Lost: true, Unplaced: true}},
	} {
		require.Equal(t, c.want, Compare(c.page, c.since), c.name)
	}
}

func TestHas(t *testing.T) {
	for p, want := range map[adapter.Position]bool{
		at(9, 70): true, at(9, 71): false, at(7, 55): true, at(7, 56): false, at(1, 40): true, at(1, 41): false, at(3, 1): false,
	} {
		require.Equal(t, want, Has(page(1), p), p)
	}
}

func TestWhole(t *testing.T) {
	require.True(t, Whole(page(1), 9, 9, 0))
	require.True(t, Whole(page(1), 7, 9, 0), "the backend knows")
	require.False(t, Whole(page(1), 1, 7, 0))
	require.False(t, Whole(page(1), 1, 9, 7))
	require.True(t, Whole(page(1), 1, 9, 1), "the hub has witnessed it")
}

func TestProgresses(t *testing.T) {
	frames := func(at ...adapter.Position) (list []adapter.KeptFrame) {
		for _, p := range at {
			list = append(list, adapter.KeptFrame{At: p})
		}
		return list
	}
	require.True(t, Progresses(&adapter.Page{}, at(1, 1)))
	require.False(t, Progresses(&adapter.Page{More: true}, at(1, 1)))
	require.True(t, Progresses(&adapter.Page{Frames: frames(at(1, 2), at(2, 3))}, at(1, 1)))
	require.False(t, Progresses(&adapter.Page{Frames: frames(at(1, 1))}, at(1, 1)))
	require.False(t, Progresses(&adapter.Page{Frames: frames(at(1, 3), at(1, 2))}, at(1, 1)))
}

func TestCheck(t *testing.T) {
	believed := func(epoch uint64) bool { return epoch > 0 && epoch < 100 }
	frame := func(epoch, offset uint64) adapter.KeptFrame { return adapter.KeptFrame{At: at(epoch, offset)} }
	require.NoError(t, Check(&adapter.Page{First: 1}, at(9, 1), believed), "no history")
	good := page(69)
	good.Frames = []adapter.KeptFrame{frame(9, 69), frame(9, 70)}
	require.NoError(t, Check(good, at(9, 68), believed))
	for name, harm := range map[string]func(p *adapter.Page){
		"an epoch that is not believed": func(p *adapter.Page) { p.Head.Epoch = 100 },
		"an offset beyond 2^53":         func(p *adapter.Page) { p.Head.Offset = MaxOffset + 1 },
		"a past epoch that is later":    func(p *adapter.Page) { p.Before[1].Epoch = 9 },
		"a past offset beyond 2^53":     func(p *adapter.Page) { p.Before[0].Last = MaxOffset + 1 },
		"a frame beyond the head":       func(p *adapter.Page) { p.Frames[1] = frame(9, 71) },
		"a frame of a later epoch":      func(p *adapter.Page) { p.Frames[1] = frame(10, 70) },
		"a frame at offset 0":           func(p *adapter.Page) { p.Frames[0] = frame(9, 0) },
		"frames that go back":           func(p *adapter.Page) { p.Frames[0], p.Frames[1] = p.Frames[1], p.Frames[0] },
		"a frame that was not asked":    func(p *adapter.Page) { p.Frames[0] = frame(9, 68) },
	} {
		p := page(69)
		p.Frames = []adapter.KeptFrame{frame(9, 69), frame(9, 70)}
		harm(p)
		err := Check(p, at(9, 68), believed)
		require.ErrorIs(t, err, adapter.ErrBrokenHistory, name)
		require.ErrorIs(t, err, adapter.ErrRefused, name)
	}
}

func TestBelievedEpoch(t *testing.T) {
	now := int64(written) + 1000
	ahead := uint64(now + MaxAhead.Milliseconds())
	for epoch, want := range map[uint64]bool{0: false, 1: true, ahead: true, ahead + 1: false, MaxEpoch: false, math.MaxUint64: false} {
		require.Equal(t, want, BelievedEpoch(epoch, now), epoch)
	}
	require.True(t, BelievedEpoch(written+uint64(time.Hour.Milliseconds()), 0), "a clock that is wrong is not asked")
}
