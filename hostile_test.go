package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

// A hostile backend gives what a script of bytes says: frames, positions and
// pages with any numbers.
type hostile struct {
	hub    adapter.HistoryReceiver
	script []byte
	page   adapter.Page
	reads  int
}

func (b *hostile) Attach(r fanout.Receiver) error {
	b.hub = r.(adapter.HistoryReceiver)
	return nil
}
func (b *hostile) Subscribe(context.Context, string) error              { return nil }
func (b *hostile) Unsubscribe(context.Context, string) error            { return nil }
func (b *hostile) Publish(context.Context, string, []byte) (int, error) { return 1, nil }
func (b *hostile) Close(context.Context) error                          { return nil }

func (b *hostile) Append(context.Context, string, adapter.Record) (adapter.Position, int, error) {
	return adapter.Position{Epoch: math.MaxUint64, Offset: math.MaxUint64}, -1, nil
}

// History takes a while, so that a hub that asks without a pause is found out.
func (b *hostile) History(context.Context, string, adapter.Query) (adapter.Page, error) {
	b.reads++
	time.Sleep(time.Millisecond)
	return b.page, nil
}

// next returns the next byte of the script, 0 at its end.
func (b *hostile) next() byte {
	if len(b.script) == 0 {
		return 0
	}
	c := b.script[0]
	b.script = b.script[1:]
	return c
}

// number returns one near a bound that something has.
func (b *hostile) number() uint64 {
	bounds := []uint64{
		0, 0, 0, 1, 2, 5, 100, 1 << 20, 1 << 32, 1 << 40, 1 << 44, 1 << 53, 1 << 60, 1 << 62, 1 << 63, math.MaxUint64 - 3,
		946_684_800_000, 946_684_800_000, 946_684_800_000, 1_767_225_600_000 + 366*86_400_000, 1 << 31, math.MaxUint64 - 100,
	}
	c := b.next()
	return bounds[int(c&31)%len(bounds)] + uint64(c>>5)
}

func (b *hostile) position() adapter.Position {
	return adapter.Position{Epoch: b.number(), Offset: b.number()}
}

// frame returns a frame of one of three hubs or of a stranger, or rubbish.
func (b *hostile) frame() []byte {
	kind := b.next()
	if kind >= 240 {
		n := int(b.next())
		return b.script[:min(len(b.script), n)]
	}
	if kind >= 220 {
		return []byte("a stranger")
	}
	texts := numbers(1, 1+int(kind>>2%4))
	frame := wire.AppendHeader(nil, &wire.Header{
		Hub: uint64(kind % 3), Time: b.number(), Stream: b.number(), Seq: b.number(), Count: len(texts), Resent: kind&64 != 0,
	})
	for _, text := range texts {
		frame = wire.AppendMessage(frame, &wire.Message{Data: []byte(text), Volatile: kind&128 != 0})
	}
	if kind == 201 {
		frame = append(frame, 7)
	}
	return frame
}

func (b *hostile) newPage() {
	b.page = adapter.Page{Head: b.position(), First: b.number(), More: b.next()&3 == 0}
	for range b.next() & 3 {
		b.page.Before = append(b.page.Before, adapter.PastEpoch{Epoch: b.number(), Last: b.number(), Whole: b.next()&1 == 0})
	}
	for range b.next() & 7 {
		at := b.position()
		if len(b.page.Frames)%2 == 0 {
			at.Epoch = b.page.Head.Epoch
		}
		b.page.Frames = append(b.page.Frames, adapter.KeptFrame{At: at, Frame: b.frame()})
	}
}

// Whatever a backend gives: no panic, no negative or absurd number, and a hub
// that asks within bounds and ends in time.
func FuzzHostileBackend(f *testing.F) {
	f.Add([]byte{0, 4, 16, 3, 1, 3, 1, 16, 4, 4, 16, 3, 3, 5, 1, 2, 8, 9, 2, 10, 11})
	f.Add([]byte{1, 16, 3, 4, 16, 3, 3, 1, 17, 35, 4, 16, 3, 67, 2, 6, 7, 3, 9, 10, 1, 16, 3, 4, 16, 3, 3})
	f.Add([]byte("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"))
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 1000 {
			return
		}
		synctest.Test(t, func(t *testing.T) { beHostile(t, &hostile{script: script}) })
	})
}

func beHostile(t *testing.T, b *hostile) {
	o := keeping(20)
	o.Window = fanout.Window{Messages: 8}
	o.Logger = slog.New(slog.DiscardHandler)
	h := newHubOn(t, b, o)
	var members []*fanout.Member
	come := func(join func(ctx context.Context, m *fanout.Member) error) {
		m, err := h.Connect(nil)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if join(ctx, m) == nil {
			members = append(members, m)
		}
	}
	began, steps, broken := time.Now(), 0, map[string]bool{}
	for ; len(b.script) > 0 && steps < 100; steps++ {
		room := "x"
		if c := b.next(); c&1 == 1 {
			room = "plain"
		}
		channel := "fanout:r:{" + room + "}"
		switch b.next() % 12 {
		case 0, 1:
			come(h.Room(room).Join)
		case 2:
			at := b.position()
			come(func(ctx context.Context, m *fanout.Member) error {
				return h.Room(room).Resume(ctx, m, fanout.Position(at))
			})
		case 3:
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			_, err := h.Room(room).History(ctx, fanout.Position(b.position()), int(b.next()))
			cancel()
			if gap := new(fanout.GapError); errors.As(err, &gap) {
				require.GreaterOrEqual(t, gap.Missed, 0)
			}
		case 4:
			b.newPage()
		case 5:
			if broken[room] = !broken[room]; broken[room] {
				b.hub.Interrupted(channel)
			} else {
				b.hub.Restored(channel)
			}
		case 6:
			if broken[room] = !broken[room]; broken[room] {
				b.hub.Moving(channel)
			} else {
				b.hub.Restored(channel)
			}
		case 7:
			time.Sleep(time.Second)
		case 8, 9:
			b.hub.Receive(channel, b.frame())
		default:
			b.hub.ReceiveKept(channel, adapter.KeptFrame{At: b.position(), Frame: b.frame()})
		}
		synctest.Wait()
	}
	require.Less(t, time.Since(began), time.Duration(steps+1)*6*time.Second)
	for _, m := range members {
		for {
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			_, err := m.Receive(ctx)
			cancel()
			gap := new(fanout.GapError)
			if errors.As(err, &gap) {
				require.GreaterOrEqual(t, gap.Missed, 0, fmt.Sprint(gap))
				require.Less(t, gap.Missed, 1<<40, fmt.Sprint(gap))
			} else if err != nil {
				require.ErrorIs(t, err, context.DeadlineExceeded)
				break
			}
		}
	}
	require.Less(t, h.Stats().Missed, uint64(1<<40))
}
