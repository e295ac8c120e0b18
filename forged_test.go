package fanout_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

// A forger is an adapter through which anything comes.
type forger struct {
	*memory.Adapter
	hub  adapter.HistoryReceiver
	page atomic.Pointer[func(adapter.Query, adapter.Page) adapter.Page]
}

func (f *forger) Attach(r fanout.Receiver) error {
	f.hub = r.(adapter.HistoryReceiver)
	return f.Adapter.Attach(r)
}

func (f *forger) History(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
	page, err := f.Adapter.History(ctx, channel, q)
	if forge := f.page.Load(); forge != nil && err == nil {
		page = (*forge)(q, page)
	}
	return page, err
}

// quiet returns options for hubs that keep a history and log nothing.
func quiet() *fanout.Options {
	o := keeping(100)
	o.Logger = slog.New(slog.DiscardHandler)
	return o
}

const channelX = "fanout:r:{x}"

// frameOf returns a frame of a hub with some messages.
func frameOf(hub, stream, seq uint64, texts ...string) []byte {
	frame := wire.AppendHeader(nil, &wire.Header{
		Hub: hub, Time: uint64(time.Now().UnixMilli()), Stream: stream, Seq: seq, Count: len(texts),
	})
	for _, text := range texts {
		frame = wire.AppendMessage(frame, &wire.Message{Data: []byte(text)})
	}
	return frame
}

func numberOf(t testing.TB, h *fanout.Hub) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(h.ID(), 16, 64)
	require.NoError(t, err)
	return n
}

// A forged frame in a hub's name may mute the hub for a while, but not
// silently, and not for ever.
func TestForgedNumbersMuteNobodySilently(t *testing.T) {
	for name, forged := range map[string]struct{ stream, seq uint64 }{
		"the next stream":            {2, 1},
		"the last stream":            {math.MaxUint64, 1},
		"the last numbers":           {1, math.MaxUint64 - 1},
		"numbers beyond 2^63":        {1, 1 << 63},
		"a jump of 2^40":             {1, 1 << 40},
		"a jump of 2^30":             {1, 1 << 30},
		"all the numbers of another": {7, math.MaxUint64 - 1},
		"stream 0":                   {0, 1 << 62},
	} {
		for _, known := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, known %v", name, known), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					bus := memory.NewBus()
					a, b := newHub(t, bus, nil), newHub(t, bus, nil)
					m := connect(t, b, "x")
					if known {
						publish(t, a.Room("x"), 1, 3)
						require.Equal(t, numbers(1, 3), receive(t, m, 3))
					}
					_, err := bus.NewAdapter().Publish(t.Context(), channelX, frameOf(numberOf(t, a), forged.stream, forged.seq, "forged"))
					require.NoError(t, err)
					synctest.Wait()
					publish(t, a.Room("x"), 4, 23)
					got := accountOf(t, m)
					require.GreaterOrEqual(t, len(got.got)+got.missed, 20, "%v", got)
					publish(t, a.Room("x"), 24, 30)
					require.Equal(t, account{got: numbers(24, 30)}, accountOf(t, m), "it is followed again")
				})
			})
		}
	}
}

// In a room with a history no hub is muted, because positions determine the
// order.
func TestForgedNumbersInAHistory(t *testing.T) {
	for _, kept := range []bool{false, true} {
		for name, forged := range map[string]struct{ stream, seq uint64 }{
			"the last stream": {math.MaxUint64, 1}, "numbers beyond 2^63": {1, 1 << 63}, "a jump of 2^30": {1, 1 << 30}, "the next number": {1, 4},
		} {
			t.Run(fmt.Sprintf("%s, kept %v", name, kept), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					bus := memory.NewBus()
					node := &forger{Adapter: bus.NewAdapter()}
					a, b := newHub(t, bus, quiet()), newHubOn(t, node, quiet())
					m := connect(t, b, "x")
					publish(t, a.Room("x"), 1, 3)
					msg, err := m.Receive(within(t))
					require.NoError(t, err)
					require.Equal(t, numbers(2, 3), receive(t, m, 2))
					frame := frameOf(numberOf(t, a), forged.stream, forged.seq, "forged")
					if kept { // in the place of the next
						node.hub.ReceiveKept(channelX, adapter.KeptFrame{At: adapter.Position{Epoch: msg.Position.Epoch >> 20, Offset: 4}, Frame: frame})
					} else {
						node.hub.Receive(channelX, frame)
					}
					synctest.Wait()
					publish(t, a.Room("x"), 4, 23)
					got := accountOf(t, m)
					require.GreaterOrEqual(t, len(got.got)+got.missed, 20, "%v", got)
					publish(t, a.Room("x"), 24, 30)
					got = accountOf(t, m)
					require.Equal(t, account{got: numbers(24, 30)}, got)
				})
			})
		}
	}
}

// An epoch of the far future does not make a room deaf, whether a frame has it
// or the history.
func TestEpochOfTheFarFuture(t *testing.T) {
	year := uint64((365 * 24 * time.Hour).Milliseconds())
	for name, epoch := range map[string]uint64{
		"in a year": 946_684_800_000 + year, "in 100 years": 946_684_800_000 + 100*year,
		"the last that is believed": 1<<44 - 1, "the first that is not": 1 << 44, "the last": math.MaxUint64,
	} {
		for _, offset := range []uint64{1, 2, 5, 1 << 52, 1<<63 + 1, math.MaxUint64} {
			for _, empty := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, offset %d, empty %v", name, offset, empty), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						bus := memory.NewBus()
						node := &forger{Adapter: bus.NewAdapter()}
						a, b := newHub(t, bus, quiet()), newHubOn(t, node, quiet())
						m := connect(t, b, "x")
						if !empty {
							publish(t, a.Room("x"), 1, 3)
							require.Equal(t, numbers(1, 3), receive(t, m, 3))
						}
						at := adapter.Position{Epoch: epoch, Offset: offset}
						node.hub.ReceiveKept(channelX, adapter.KeptFrame{At: at, Frame: frameOf(9, 1, 1, "forged")})
						synctest.Wait()
						publish(t, a.Room("x"), 4, 23)
						got := accountOf(t, m)
						require.Equal(t, 20, len(got.got)-countOf(got.got, "forged")+got.missed, "%v", got)
						require.Greater(t, len(got.got), 15)
						publish(t, a.Room("x"), 24, 30)
						require.Equal(t, account{got: numbers(24, 30)}, accountOf(t, m))
					})
				})
			}
		}
		t.Run(name+", in the history", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := memory.NewBus()
				node := &forger{Adapter: bus.NewAdapter()}
				a, b := newHub(t, bus, quiet()), newHubOn(t, node, quiet())
				m := connect(t, b, "x")
				forge := func(q adapter.Query, p adapter.Page) adapter.Page {
					return adapter.Page{Head: adapter.Position{Epoch: epoch, Offset: 0}, First: 1}
				}
				node.page.Store(&forge)
				node.CutSubscriber()
				node.Heal()
				synctest.Wait()
				publish(t, a.Room("x"), 1, 20)
				got := accountOf(t, m)
				if name != "in a year" {
					require.Positive(t, got.unknown)
				}
				require.GreaterOrEqual(t, len(got.got)+got.missed, 19, "%v", got)

				node.page.Store(nil) // the keys are mended, or gone
				time.Sleep(2 * time.Second)
				publish(t, a.Room("x"), 21, 22)
				accountOf(t, m)
				publish(t, a.Room("x"), 23, 30)
				require.Equal(t, account{got: numbers(23, 30)}, accountOf(t, m))
				connect(t, b, "x")
			})
		})
	}
}

func countOf(list []string, text string) (n int) {
	for _, s := range list {
		if s == text {
			n++
		}
	}
	return n
}

// Pages that no history can have are ErrBrokenHistory and, for members in the
// room, gaps; and the room continues to work.
func TestForgedPages(t *testing.T) {
	for name, forge := range map[string]func(p *adapter.Page){
		"an offset near 2^63, and an entry of a later epoch": func(p *adapter.Page) {
			p.Head.Offset = 1<<63 - 2
			p.Frames = []adapter.KeptFrame{{At: adapter.Position{Epoch: p.Head.Epoch + 1, Offset: 1<<63 - 3}, Frame: frameOf(9, 1, 1, "forged")}}
		},
		"the last offset":          func(p *adapter.Page) { p.Head.Offset = math.MaxUint64 },
		"an epoch that is too far": func(p *adapter.Page) { p.Head.Epoch = 1 << 60 },
		"frames that go back": func(p *adapter.Page) {
			p.Frames = []adapter.KeptFrame{p.Frames[1], p.Frames[0]}
		},
		"the same frame again": func(p *adapter.Page) {
			p.Frames = []adapter.KeptFrame{p.Frames[0], p.Frames[0]}
			p.More = true
		},
		"a past epoch that is later": func(p *adapter.Page) {
			p.Before = []adapter.PastEpoch{{Epoch: p.Head.Epoch + 5, Last: 2}}
		},
		"a past epoch with the last offset": func(p *adapter.Page) {
			p.Before = []adapter.PastEpoch{{Epoch: 1, Last: math.MaxUint64}}
		},
		"an absurd first offset": func(p *adapter.Page) { p.First = math.MaxUint64 },
		"a history that is far ahead": func(p *adapter.Page) {
			p.Head.Offset = 1 << 50
			p.First, p.Frames = 1<<50+1, nil
		},
		"frames that are not there":                         func(p *adapter.Page) { p.Frames = p.Frames[2:] },
		"the last frames are not there":                     func(p *adapter.Page) { p.Frames = p.Frames[:2] },
		"an earlier epoch":                                  func(p *adapter.Page) { p.Head.Epoch, p.Frames = 5, nil },
		"malformed frames with numbers that have come":      func(p *adapter.Page) { p.Frames[0].Frame = append(frameOf(9, 1, 1, "forged"), 1) },
		"a frame with more messages than offsets":           func(p *adapter.Page) { p.Frames[0].Frame = frameOf(9, 1, 1, numbers(1, 300)...) },
		"a frame with all the messages since the beginning": func(p *adapter.Page) { p.Frames[1].Frame = frameOf(9, 1, 1, numbers(1, 5)...) },
		"no history": func(p *adapter.Page) { *p = adapter.Page{First: 1} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := memory.NewBus()
				node := &forger{Adapter: bus.NewAdapter()}
				a, b := newHub(t, bus, quiet()), newHubOn(t, node, quiet())
				m := connect(t, b, "x")
				publish(t, a.Room("x"), 1, 3)
				at := position(t, a.Room("x"))
				require.Equal(t, numbers(1, 3), receive(t, m, 3))
				node.hub.Receive(channelX, frameOf(9, 1, 1, "forged")) // its numbers have come
				require.Equal(t, []string{"forged"}, receive(t, m, 1))
				f := func(q adapter.Query, p adapter.Page) adapter.Page {
					if len(p.Frames) > 2 {
						forge(&p)
					}
					return p
				}
				node.page.Store(&f)
				node.CutSubscriber()
				publish(t, a.Room("x"), 4, 9)
				node.Heal()
				got := accountOf(t, m)
				require.Positive(t, got.unknown+got.missed+len(got.got))
				late := connect(t, b)
				if b.Room("x").Resume(within(t), late, at) == nil {
					accountOf(t, late)
				}
				_, _ = b.Room("x").History(within(t), at, 0)
				_, _ = b.Room("x").History(within(t), fanout.Position{}, 0)
				require.Less(t, b.Stats().Reads, uint64(40))

				node.page.Store(nil)
				time.Sleep(2 * time.Second)
				publish(t, a.Room("x"), 10, 12)
				accountOf(t, m)
				publish(t, a.Room("x"), 13, 20)
				require.Equal(t, account{got: numbers(13, 20)}, accountOf(t, m), "it goes on")
				require.NoError(t, late.Close())
				late = connect(t, b)
				require.NoError(t, b.Room("x").Resume(within(t), late, fanout.Position{}))
				require.Equal(t, account{got: numbers(1, 20)}, accountOf(t, late), "the history is whole")
			})
		})
	}
}
