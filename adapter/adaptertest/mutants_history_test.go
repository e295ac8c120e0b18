package adaptertest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
)

var historyMutants = historical([]mutant{
	{
		name: "counts frames of many messages as four", fails: "history-numbers-messages", says: "want offset",
		breakIt: func(n *node) {
			n.append = func(ctx context.Context, channel string, r adapter.Record) (adapter.Position, int, error) {
				r.Messages = min(r.Messages, 4)
				return n.Adapter.Append(ctx, channel, r)
			}
		},
	},
	{
		name: "tells subscribers the position of the first message", fails: "history-numbers-messages", says: "live: number 5",
		breakIt: func(n *node) {
			n.hear.kept = func(next adapter.HistoryReceiver, channel string, f adapter.KeptFrame) {
				if strings.HasPrefix(string(f.Frame), "5 messages") {
					f.At.Offset -= 4
				}
				next.ReceiveKept(channel, f)
			}
		},
	},
	{
		name: "has epochs in microseconds", fails: "history-numbers-messages", says: "not close to the current time",
		breakIt: func(n *node) {
			n.rename(func(p adapter.Position) adapter.Position {
				return adapter.Position{Epoch: p.Epoch * 1000, Offset: p.Offset}
			}, func(p adapter.Position) adapter.Position {
				return adapter.Position{Epoch: p.Epoch / 1000, Offset: p.Offset}
			})
		},
	},
	{
		name: "drops a kept frame", fails: "history-delivers-live", says: "the first missing one",
		also: []string{"history-matches-live"}, // which tests the same for reading
		breakIt: func(n *node) {
			n.hear.kept = func(next adapter.HistoryReceiver, channel string, f adapter.KeptFrame) {
				if isProbe(f.Frame) || n.tally(channel) != 60 {
					next.ReceiveKept(channel, f)
				}
			}
		},
	},
	{
		name: "repeats a kept frame", fails: "history-delivers-live", says: "number 21",
		also: []string{"history-matches-live"},
		breakIt: func(n *node) {
			n.hear.kept = func(next adapter.HistoryReceiver, channel string, f adapter.KeptFrame) {
				next.ReceiveKept(channel, f)
				if !isProbe(f.Frame) && n.tally(channel) == 20 {
					next.ReceiveKept(channel, f)
				}
			}
		},
	},
	{
		name: "delivers in another order than that of positions", fails: "history-delivers-live", says: "received by node 1",
		also:    []string{"history-matches-live"},
		breakIt: keptOutOfOrder,
	},
	{
		name: "counts receivers of kept frames wrong", fails: "history-delivers-live", says: "Append returned 2",
		breakIt: func(n *node) {
			n.append = func(ctx context.Context, channel string, r adapter.Record) (adapter.Position, int, error) {
				at, count, err := n.Adapter.Append(ctx, channel, r)
				return at, min(count, 2), err
			}
		},
	},
	{
		name: "uses its buffer again for kept frames", fails: "history-delivers-live", says: "later became",
		breakIt: func(n *node) {
			buffer := make([]byte, 2<<20)
			n.hear.kept = func(next adapter.HistoryReceiver, channel string, f adapter.KeptFrame) {
				if strings.Contains(string(f.Frame), "messages, ") && strings.Contains(string(f.Frame), " of node") {
					f.Frame = buffer[:copy(buffer, f.Frame)]
				}
				next.ReceiveKept(channel, f)
			}
		},
		also: []string{"history-matches-live"},
	},
	{
		name: "keeps frames up to NUL", fails: "history-frames-are-opaque", says: "history: number 2",
		breakIt: func(n *node) {
			n.history = func(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
				page, err := n.Adapter.History(ctx, channel, q)
				for i, f := range page.Frames {
					if !isProbe(f.Frame) {
						page.Frames[i].Frame, _, _ = bytes.Cut(f.Frame, []byte{0})
					}
				}
				return page, err
			}
		},
	},
	{
		name: "writes behind a frame that is kept", fails: "history-frames-are-opaque", says: "changed what was appended",
		breakIt: func(n *node) {
			n.append = func(ctx context.Context, channel string, r adapter.Record) (adapter.Position, int, error) {
				line := append(r.Frame, "\r\n"...)
				r.Frame = line[:len(r.Frame)]
				return n.Adapter.Append(ctx, channel, r)
			}
		},
	},
	{
		name: "reads after the end of the frame that a position is in", fails: "history-reads-after", says: "inside a frame",
		breakIt: func(n *node) {
			n.history = func(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
				page, err := n.Adapter.History(ctx, channel, q)
				if len(page.Frames) > 0 && !q.Since.IsZero() {
					var count uint64
					f := page.Frames[0]
					if _, err := fmt.Sscanf(string(f.Frame), "%d messages", &count); err == nil && f.At.Offset-count < q.Since.Offset {
						page.Frames = page.Frames[1:]
					}
				}
				return page, err
			}
		},
	},
	{
		name: "has no history of what was never said", fails: "history-reads-after", says: "no such key",
		breakIt: func(n *node) {
			n.history = func(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
				page, err := n.Adapter.History(ctx, channel, q)
				if err == nil && page.Head.IsZero() {
					err = errors.New("no such key")
				}
				return page, err
			}
		},
	},
	{
		name: "takes what was appended meanwhile for lost", fails: "history-begins-once", says: "reads for the first time: the head is",
		breakIt: func(n *node) {
			var read atomic.Bool
			n.history = func(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
				head, err := n.Adapter.History(ctx, channel, adapter.Query{Keep: q.Keep, Time: q.Time})
				if err != nil {
					return head, err
				}
				page, err := n.Adapter.History(ctx, channel, q)
				if !read.Swap(true) && page.Head.Offset > 1 {
					page.Before = append(page.Before, adapter.PastEpoch{Epoch: head.Head.Epoch, Last: head.Head.Offset})
				}
				return page, err
			}
		},
	},
	{
		name: "gives all the same page", fails: "history-reads-after", says: "what others have read",
		breakIt: func(n *node) {
			var mu sync.Mutex
			pages := make(map[string][]adapter.KeptFrame)
			n.history = func(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
				page, err := n.Adapter.History(ctx, channel, q)
				asked := fmt.Sprint(channel, q.Since, q.Limit, q.Keep, page.Head, page.First)
				mu.Lock()
				defer mu.Unlock()
				if had, ok := pages[asked]; ok {
					page.Frames = had
				} else {
					pages[asked] = page.Frames
				}
				return page, err
			}
		},
	},
	{
		name: "ends each page one frame late", fails: "history-pages", says: "Limit is",
		breakIt: func(n *node) {
			n.history = func(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
				if q.Limit > 0 {
					q.Limit++
				}
				return n.Adapter.History(ctx, channel, q)
			}
		},
	},
	{
		name: "always says that there is more", fails: "history-pages", says: "is empty",
		also: []string{
			"history-numbers-messages", "history-frames-are-opaque", "history-reads-after", "history-is-of-its-channel",
			"history-trims-by-number", "history-trims-by-age", "history-repeats-once", "history-begins-once", "history-obeys-context",
		}, // cases that read to the end
		breakIt: func(n *node) {
			n.history = func(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
				page, err := n.Adapter.History(ctx, channel, q)
				page.More = true
				return page, err
			}
		},
	},
	{
		name: "a short page is the end", fails: "history-pages", says: "in pages of",
		also: []string{"history-trims-by-number", "history-trims-by-age"},
		breakIt: func(n *node) {
			n.history = func(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
				page, err := n.Adapter.History(ctx, channel, q)
				page.More = page.More && len(page.Frames) == q.Limit
				return page, err
			}
		},
	},
	{
		name: "takes no limit for all", fails: "history-pages", says: "with Limit 0",
		breakIt: func(n *node) {
			n.history = func(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
				if q.Limit == 0 {
					q.Limit = 100
				}
				return n.Adapter.History(ctx, channel, q)
			}
		},
	},
	{
		name: "histories know no case", fails: "history-is-of-its-channel", says: "history of",
		breakIt: func(n *node) { n.nameHistories(strings.ToLower) },
	},
	{
		name: "cuts long names of histories", fails: "history-is-of-its-channel", says: "history of",
		breakIt: func(n *node) {
			n.nameHistories(func(channel string) string { return channel[:min(len(channel), 255)] })
		},
	},
	{
		name: "never trims by number", fails: "history-trims-by-number", says: "First is 1, want",
		breakIt: func(n *node) {
			n.append = func(ctx context.Context, channel string, r adapter.Record) (adapter.Position, int, error) {
				r.Keep.Messages = 1 << 20
				return n.Adapter.Append(ctx, channel, r)
			}
			n.history = func(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
				q.Keep.Messages = 1 << 20
				return n.Adapter.History(ctx, channel, q)
			}
		},
	},
	{
		name: "hands out what it still has", fails: "history-trims-by-number", says: "First is",
		breakIt: func(n *node) {
			n.history = func(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
				q.Keep.Messages = 1 << 20
				return n.Adapter.History(ctx, channel, q)
			}
		},
	},
	{
		name: "does not tell what was trimmed", fails: "history-trims-by-number", says: "First is",
		also: []string{"history-trims-by-age"},
		breakIt: func(n *node) {
			n.history = func(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
				page, err := n.Adapter.History(ctx, channel, q)
				page.First = min(page.First, max(1, q.Since.Offset+1))
				return page, err
			}
		},
	},
	{
		name: "drops a frame that reaches over the bound", fails: "history-trims-by-number", says: "after 0-0",
		breakIt: func(n *node) {
			n.history = func(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
				page, err := n.Adapter.History(ctx, channel, q)
				if len(page.Frames) > 0 {
					var count uint64
					f := page.Frames[0]
					if _, err := fmt.Sscanf(string(f.Frame), "%d messages", &count); err == nil && f.At.Offset-count+1 < page.First {
						page.Frames = page.Frames[1:]
					}
				}
				return page, err
			}
		},
	},
	{
		name: "never trims by age", fails: "history-trims-by-age", says: "First is",
		breakIt: func(n *node) {
			n.append = func(ctx context.Context, channel string, r adapter.Record) (adapter.Position, int, error) {
				r.Keep.Age = 24 * time.Hour
				return n.Adapter.Append(ctx, channel, r)
			}
			n.history = func(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
				q.Keep.Age = 24 * time.Hour
				return n.Adapter.History(ctx, channel, q)
			}
		},
	},
	{
		name: "hands out what is a little too old", fails: "history-trims-by-age", says: "First is",
		breakIt: func(n *node) {
			n.history = func(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
				q.Keep.Age += 2 * time.Second
				return n.Adapter.History(ctx, channel, q)
			}
		},
	},
	{
		name: "does not recognise what is repeated", fails: "history-repeats-once", says: "again returned",
		breakIt: func(n *node) {
			n.append = func(ctx context.Context, channel string, r adapter.Record) (adapter.Position, int, error) {
				r.Publisher = ""
				return n.Adapter.Append(ctx, channel, r)
			}
		},
	},
	{
		name: "recognises the number alone", fails: "history-repeats-once", says: "live",
		breakIt: func(n *node) {
			n.append = func(ctx context.Context, channel string, r adapter.Record) (adapter.Position, int, error) {
				r.Stream = 0
				return n.Adapter.Append(ctx, channel, r)
			}
		},
	},
	{
		name: "recognises publishers without a name", fails: "history-repeats-once", says: "live",
		breakIt: func(n *node) {
			n.append = func(ctx context.Context, channel string, r adapter.Record) (adapter.Position, int, error) {
				if r.Publisher == "" && r.Seq > 0 {
					r.Publisher = "nobody"
				}
				return n.Adapter.Append(ctx, channel, r)
			}
		},
	},
	{
		name: "sends what is repeated", fails: "history-repeats-once", says: "live",
		breakIt: func(n *node) {
			n.append = func(ctx context.Context, channel string, r adapter.Record) (adapter.Position, int, error) {
				at, count, err := n.Adapter.Append(ctx, channel, r)
				if err == nil && count == -1 {
					n.world.members[1].target().(adapter.HistoryReceiver).ReceiveKept(channel, adapter.KeptFrame{At: at, Frame: r.Frame})
				}
				return at, count, err
			}
		},
	},
	{
		name: "reads the head later than the page", fails: "history-matches-live", says: "More is false",
		breakIt: func(n *node) {
			n.history = func(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
				page, err := n.Adapter.History(ctx, channel, q)
				if err != nil || q.Limit == 0 {
					return page, err
				}
				time.Sleep(time.Millisecond)
				q.Limit = 0
				later, err := n.Adapter.History(ctx, channel, q)
				page.Head = later.Head
				return page, err
			}
		},
	},
	{
		name: "loses what is appended too late", fails: "history-obeys-context", says: "is not kept",
		breakIt: func(n *node) {
			n.append = func(ctx context.Context, channel string, r adapter.Record) (adapter.Position, int, error) {
				if ctx.Err() != nil {
					return adapter.Position{}, -1, nil
				}
				return n.Adapter.Append(ctx, channel, r)
			}
		},
	},
	{
		name: "keeps what it says is unsent", fails: "history-obeys-context", says: "is kept, but",
		breakIt: func(n *node) {
			n.append = func(ctx context.Context, channel string, r adapter.Record) (adapter.Position, int, error) {
				at, count, err := n.Adapter.Append(context.WithoutCancel(ctx), channel, r)
				if err == nil && ctx.Err() != nil {
					err = fmt.Errorf("%w: %w", adapter.ErrUnsent, ctx.Err())
				}
				return at, count, err
			}
		},
	},
	{
		name: "a reading is ended by the wrong error", fails: "history-obeys-context", says: "EOF",
		breakIt: func(n *node) {
			n.history = func(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
				if ctx.Err() != nil {
					return adapter.Page{}, errors.New("EOF")
				}
				return n.Adapter.History(ctx, channel, q)
			}
		},
	},
	{
		name: "reads after Close", fails: "history-after-close", says: "History after Close",
		breakIt: func(n *node) {
			n.history = func(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
				page, err := n.Adapter.History(ctx, channel, q)
				if errors.Is(err, adapter.ErrClosed) {
					err = nil
				}
				return page, err
			}
		},
	},
	{
		name: "append after Close is not unsent", fails: "history-after-close", says: "Append after Close",
		breakIt: func(n *node) {
			n.append = func(ctx context.Context, channel string, r adapter.Record) (adapter.Position, int, error) {
				at, count, err := n.Adapter.Append(ctx, channel, r)
				if errors.Is(err, adapter.ErrClosed) {
					err = adapter.ErrClosed
				}
				return at, count, err
			}
		},
	},

	{
		name: "reads from a replica that lags", fails: "history-fills-interruption", says: "nor find it",
		faults: breaks, breakIt: readBehind,
	},
	{
		name: "loses kept frames after Restored", fails: "history-fills-interruption", says: "did not receive",
		faults: breaks,
		breakIt: func(n *node) {
			frames := make(map[string]int) // only memory's reader uses it
			n.hear.restored = func(next adapter.Receiver, channel string) {
				frames[channel] = 1
				next.Restored(channel)
			}
			n.hear.kept = func(next adapter.HistoryReceiver, channel string, f adapter.KeptFrame) {
				if frames[channel] > 0 && !isProbe(f.Frame) {
					// Several times, since it may read the first one in the
					// history.
					if frames[channel]++; frames[channel]%3 == 0 {
						return
					}
				}
				next.ReceiveKept(channel, f)
			}
		},
	},
	{
		name: "appends nil while cut", fails: "outage-append-tells-the-truth", says: "is not kept", faults: cuts,
		breakIt: func(n *node) {
			n.append = func(ctx context.Context, channel string, r adapter.Record) (adapter.Position, int, error) {
				at, count, err := n.Adapter.Append(ctx, channel, r)
				if errors.Is(err, memory.ErrCut) {
					return at, -1, nil
				}
				return at, count, err
			}
		},
	},
	{
		name: "keeps what it says is unsent while cut", fails: "outage-append-tells-the-truth", says: "is kept, but", faults: cuts,
		breakIt: func(n *node) {
			n.cutBy = n.CutInbound
			n.append = func(ctx context.Context, channel string, r adapter.Record) (adapter.Position, int, error) {
				at, count, err := n.Adapter.Append(ctx, channel, r)
				if errors.Is(err, memory.ErrCut) {
					err = fmt.Errorf("%w: %w", adapter.ErrUnsent, err)
				}
				return at, count, err
			}
		},
	},
	{
		name: "reading waits for the backend", fails: "outage-append-tells-the-truth", says: "History of node 1", faults: cuts,
		breakIt: func(n *node) {
			n.history = func(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
				for n.isCut.Load() {
					time.Sleep(time.Millisecond)
				}
				return n.Adapter.History(ctx, channel, q)
			}
		},
	},
	{
		name: "loses the latest in a move", fails: "history-survives-move", says: "not in the history",
		faults: moves,
		breakIt: func(n *node) {
			n.world.failover = func(int, bool) { n.world.bus.Failover(2, true) }
		},
	},
	{
		name: "does not trust a move", fails: "history-survives-move", says: "is not whole", faults: moves,
		breakIt: func(n *node) {
			n.world.failover = func(int, bool) { n.world.bus.Failover(0, false) }
		},
	},
	{
		name: "knows no epoch but the present", fails: "history-survives-move", says: "the head being", faults: moves,
		breakIt: func(n *node) {
			n.history = func(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
				head := q
				head.Limit = 0
				page, err := n.Adapter.History(ctx, channel, head)
				if err != nil {
					return page, err
				}
				if q.Since.Epoch != page.Head.Epoch {
					q.Since = adapter.Position{}
				}
				return n.Adapter.History(ctx, channel, q)
			}
		},
	},
	{
		name: "never says Restored after a move", fails: "moving-is-followed-by-restored", says: "gets Restored", faults: moves,
		breakIt: func(n *node) {
			var moving bool // only memory's reader uses it
			n.hear.moving = func(next adapter.HistoryReceiver, channel string) {
				moving = true
				next.Moving(channel)
			}
			n.hear.restored = func(next adapter.Receiver, channel string) {
				if !moving {
					next.Restored(channel)
				}
			}
		},
	},
	{
		name: "says Moving twice", fails: "moving-is-followed-by-restored", says: `"mmr`, faults: moves,
		breakIt: func(n *node) {
			n.hear.moving = func(next adapter.HistoryReceiver, channel string) {
				next.Moving(channel)
				next.Moving(channel)
			}
		},
	},
	{
		name: "says Moving of what was unsubscribed", fails: "moving-is-followed-by-restored", says: "had unsubscribed from", faults: moves,
		breakIt: func(n *node) {
			var left string
			n.unsubscribe = func(ctx context.Context, channel string) error {
				n.mu.Lock()
				left = channel
				n.mu.Unlock()
				return n.Adapter.Unsubscribe(ctx, channel)
			}
			n.hear.moving = func(next adapter.HistoryReceiver, channel string) {
				next.Moving(channel)
				n.mu.Lock()
				defer n.mu.Unlock()
				if left != "" {
					next.Moving(left)
					left = ""
				}
			}
		},
	},
	{
		name: "says Moving of a broken link", fails: "moving-is-in-good-order", says: "before it received", faults: moves,
		breakIt: func(n *node) {
			n.hear.interrupted = func(next adapter.Receiver, channel string) {
				next.(adapter.HistoryReceiver).Moving(channel)
			}
		},
	},
	{
		name: "goes on in the epoch of what it lost", fails: "history-epochs-tell-a-loss", says: "is the position of", faults: fails,
		breakIt: oneEpoch,
	},
	{
		name: "says Whole though it lost some", fails: "history-epochs-tell-a-loss", says: "not in the history", faults: fails,
		breakIt: func(n *node) {
			n.world.failover = func(lost int, _ bool) { n.world.bus.Failover(lost, true) }
		},
	},
	{
		name: "does not know where an epoch ended", fails: "history-epochs-tell-a-loss", says: "not in an epoch", faults: fails,
		breakIt: func(n *node) {
			n.history = func(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
				page, err := n.Adapter.History(ctx, channel, q)
				for i := range page.Before {
					page.Before[i].Last += 2
				}
				return page, err
			}
		},
	},
})

// historical marks mutants that break only what a Historian adds.
func historical(list []mutant) []mutant {
	for i := range list {
		list[i].history = true
	}
	return list
}

// rename changes positions that it returns, and changes them back in queries.
func (n *node) rename(out, in func(adapter.Position) adapter.Position) {
	n.append = func(ctx context.Context, channel string, r adapter.Record) (adapter.Position, int, error) {
		at, count, err := n.Adapter.Append(ctx, channel, r)
		return out(at), count, err
	}
	n.hear.kept = func(next adapter.HistoryReceiver, channel string, f adapter.KeptFrame) {
		f.At = out(f.At)
		next.ReceiveKept(channel, f)
	}
	n.history = func(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
		q.Since = in(q.Since)
		page, err := n.Adapter.History(ctx, channel, q)
		if !page.Head.IsZero() {
			page.Head = out(page.Head)
		}
		for i := range page.Frames {
			page.Frames[i].At = out(page.Frames[i].At)
		}
		return page, err
	}
}

// nameHistories uses another name for a history than the given one.
func (n *node) nameHistories(name func(string) string) {
	n.append = func(ctx context.Context, channel string, r adapter.Record) (adapter.Position, int, error) {
		return n.Adapter.Append(ctx, name(channel), r)
	}
	n.history = func(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
		return n.Adapter.History(ctx, name(channel), q)
	}
}

// keptOutOfOrder delivers, on one node, a kept frame after the next one, now
// and then.
func keptOutOfOrder(n *node) {
	if n.index != 1 {
		return
	}
	held := make(map[string]adapter.KeptFrame) // only memory's reader uses it
	flush := func(next adapter.HistoryReceiver, channel string) {
		if f, ok := held[channel]; ok {
			delete(held, channel)
			next.ReceiveKept(channel, f)
		}
	}
	n.hear.receive = func(next adapter.Receiver, channel string, frame []byte) {
		flush(next.(adapter.HistoryReceiver), channel)
		next.Receive(channel, frame)
	}
	n.hear.kept = func(next adapter.HistoryReceiver, channel string, f adapter.KeptFrame) {
		if n.tally(channel) == 18 && !isProbe(f.Frame) {
			held[channel] = f
			return
		}
		next.ReceiveKept(channel, f)
		flush(next, channel)
	}
}

// readBehind reads, on a node that was interrupted, all but the latest frames
// of that time.
func readBehind(n *node) {
	n.hear.interrupted = func(next adapter.Receiver, channel string) {
		n.tally("interruptions")
		next.Interrupted(channel)
	}
	n.history = func(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
		page, err := n.Adapter.History(ctx, channel, q)
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.counts["interruptions"] > 0 && len(page.Frames) > 1 {
			page.Frames = page.Frames[1:]
		}
		return page, err
	}
}

// oneEpoch begins another epoch each day, and at no other time.
func oneEpoch(n *node) {
	const day = 24 * 60 * 60 * 1000
	n.rename(func(p adapter.Position) adapter.Position {
		return adapter.Position{Epoch: p.Epoch - p.Epoch%day, Offset: p.Offset}
	}, func(p adapter.Position) adapter.Position { return p })
	history := n.history
	n.history = func(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
		head, err := n.Adapter.History(ctx, channel, adapter.Query{Keep: q.Keep, Time: q.Time})
		if err == nil && !q.Since.IsZero() {
			q.Since.Epoch = head.Head.Epoch
		}
		page, err := history(ctx, channel, q)
		page.Before = nil
		return page, err
	}
}
