package adaptertest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

var historyFaultCases = []Case{
	{
		Name:        "history-fills-interruption",
		Explanation: "A frame that was published in an interruption is in the history after the last position that was received by the time the subscription is restored, or arrives live.",
		Nodes:       3, needs: needHistory | needBreak, run: historyFillsInterruption,
	},
	{
		Name:        "outage-append-tells-the-truth",
		Explanation: "Append and History in an outage end with their context. If Append returns nil the frame is kept; if its error wraps ErrUnsent the frame never is.",
		Nodes:       2, needs: needHistory | needCut, run: outageAppend,
	},
	{
		Name:        "history-survives-move",
		Explanation: "When a channel's home moves its history moves with it: nothing is lost or kept twice, offsets continue, and an epoch that ends by the move is whole.",
		Nodes:       3, needs: needHistory | needMove, run: historySurvivesMove,
	},
	{
		Name:        "moving-is-followed-by-restored",
		Explanation: "When a channel's home moves, the receiver gets Moving or Interrupted, and Restored, alternating, for each channel that was confirmed, and for no other.",
		Nodes:       3, needs: needHistory | needMove, run: movingIsFollowedByRestored,
	},
	{
		Name:        "moving-is-in-good-order",
		Explanation: "Every frame that the old home has accepted is received before Moving.",
		Nodes:       3, needs: needHistory | needMove, run: movingIsInGoodOrder,
	},
	{
		Name:        "history-epochs-tell-a-loss",
		Explanation: "When a channel's home dies, the history has every acknowledged frame, or shows with an epoch that is not whole where it ended. A position is never given to two frames.",
		Nodes:       3, needs: needHistory | needFail, run: historyEpochsTellALoss,
	},
}

// A filler reads from the history what a node may have missed while it was
// interrupted, as a hub does.
type filler struct {
	n, reader *node
	channel   string
	handled   int // notices that were handled
	read      []adapter.KeptFrame
}

// fill waits for the end of interruptions, if there were any, and reads the
// frames after the last position before them.
func (e *env) fill(f *filler) {
	for {
		notices := f.n.heard.notices(f.channel)
		if len(notices) == f.handled {
			return
		}
		if !strings.HasSuffix(notices, "r") {
			e.awaitRestored(f.n, []string{f.channel}, nil)
			continue
		}
		var since adapter.Position
		notice := 0
		for _, v := range f.n.heard.events(f.channel) {
			if v.kind != 'f' {
				if notice++; notice > f.handled {
					break
				}
			}
			if !v.at.IsZero() {
				since = v.at
			}
		}
		f.handled = len(notices)
		f.read = append(f.read, e.after(f.reader, f.channel, since).Frames...)
	}
}

func historyFillsInterruption(e *env) {
	n, other := e.nodes[1], e.nodes[2]
	channel := e.channel("room")
	e.join(channel, n)
	keepers := e.keepers(channel, e.nodes[0], n)
	f := &filler{n: n, reader: n, channel: channel}
	for range 3 {
		e.keepOn(keepers, 5)
		were := e.notices(n, []string{channel})
		e.breakLink(n)
		e.awaitRestored(n, []string{channel}, were)
		e.fill(f)
	}
	e.keepOn(keepers, 5)
	e.halt(keepers)
	for _, from := range e.nodes[:2] {
		e.settleKept(from, channel, n)
	}
	e.fill(f)

	all := e.after(other, channel, adapter.Position{})
	e.contiguous(all.Frames)
	e.hasAcked(all.Frames, keepers, nil)
	known := make(placed)
	e.place(known, n.String(), n.heard.kept(channel)...)
	e.place(known, "the history", f.read...)
	for _, frame := range all.Frames {
		if _, ok := known[frame.At]; !ok {
			e.failf("%v did not receive %v, nor find it in the history after the notices %q (i: Interrupted, r: Restored)",
				n, show(frame), n.heard.notices(channel))
		}
	}
	e.place(known, "the history at the end", all.Frames...)
	e.ascending(n, channel)
}

// ascending checks that the positions of the frames that a node received grow.
func (e *env) ascending(n *node, channel string) {
	frames := n.heard.kept(channel)
	for i := 1; i < len(frames); i++ {
		if !frames[i-1].At.Before(frames[i].At) {
			e.failf("%v received %v after %v", n, show(frames[i]), show(frames[i-1]))
		}
	}
}

func outageAppend(e *env) {
	witness, n := e.nodes[0], e.nodes[1]
	channel := e.channel("room")
	e.join(channel, n)
	e.mustAppend(n, channel, newRecord("before", 1))
	heal := e.cut(n)
	const patience, slack = 200 * time.Millisecond, 5 * time.Second
	results := make(map[string]error)
	inTime := func(what string, f func(ctx context.Context) error) error {
		ctx, cancel := context.WithTimeout(e.ctx, patience)
		defer cancel()
		start := time.Now()
		t := e.start(func() error { return f(ctx) })
		err := e.wait(t, "%s of %v, which is cut off, returns when its context has ended", what, n)
		if took := time.Since(start); took > patience+slack {
			e.failf("%s took %v, its context ended after %v", what, took, patience)
		}
		return err
	}
	for i := range 3 {
		r := newRecord(fmt.Sprint(i), 1)
		results[string(r.Frame)] = inTime("Append", func(ctx context.Context) error {
			_, _, err := n.append(ctx, channel, r)
			return err
		})
		_ = inTime("History", func(ctx context.Context) error {
			_, err := n.historian().History(ctx, channel, query(adapter.Position{}))
			return err
		})
	}
	heal()
	e.settleKept(n, channel, n)
	e.truth(e.after(witness, channel, adapter.Position{}).Frames, results)
}

// chain checks that the epochs of a history are in order: past ones are in
// Before, and each ends where the next one begins.
func (e *env) chain(page adapter.Page) {
	epochs := append([]adapter.PastEpoch(nil), page.Before...)
	epochs = append(epochs, adapter.PastEpoch{Epoch: page.Head.Epoch, Last: page.Head.Offset})
	for i := 1; i < len(epochs); i++ {
		if epochs[i].Epoch <= epochs[i-1].Epoch || epochs[i].Last < epochs[i-1].Last {
			e.failf("the epochs of the history do not grow: past epochs %+v, head %v", page.Before, page.Head)
		}
	}
	if epochs[len(epochs)-1].Epoch >= maxEpoch {
		e.failf("the head of the history is %v, whose epoch is too large", page.Head)
	}
	i := 0
	for _, f := range page.Frames {
		for i < len(epochs) && epochs[i].Last < first(f) {
			i++
		}
		if i == len(epochs) || epochs[i].Epoch != f.At.Epoch || f.At.Offset > epochs[i].Last {
			e.failf("%v is not in an epoch that has this offset: past epochs are %+v, the head is %v", show(f), page.Before, page.Head)
		}
	}
}

func (e *env) move(channel string) {
	e.must(e.offer.Faults.Move(e.ctx, channel), "Faults.Move of %q", channel)
}

func historySurvivesMove(e *env) {
	channel, reader := e.channel("room"), e.nodes[2]
	e.join(channel, e.nodes[1])
	keepers := e.keepers(channel, e.nodes[:2]...)
	for range 2 {
		e.keepOn(keepers, 10)
		e.move(channel)
		e.keepOn(keepers, 10)
	}
	e.halt(keepers)
	for _, from := range e.nodes[:2] {
		e.settleKept(from, channel, e.nodes[1])
	}
	all := e.after(reader, channel, adapter.Position{})
	e.contiguous(all.Frames)
	e.chain(all)
	e.hasAcked(all.Frames, keepers, nil)
	if all.First != 1 || len(all.Frames) == 0 || first(all.Frames[0]) != 1 || all.Frames[len(all.Frames)-1].At != all.Head {
		e.failf("the history, whose head is %v, lacks messages: First is %d, and there are %d frames", all.Head, all.First, len(all.Frames))
	}
	for _, past := range all.Before {
		if !past.Whole {
			e.failf("the home has moved, but the epoch %+v is not whole", past)
		}
	}
	// A position from before the move is still valid.
	for i := 0; i < len(all.Frames); i += max(1, len(all.Frames)/10) {
		since := all.Frames[i].At
		e.same(fmt.Sprintf("after %v, the head being %v", since, all.Head), e.after(reader, channel, since).Frames, all.Frames[i+1:])
	}
	known := make(placed)
	e.place(known, "the history", all.Frames...)
	e.place(known, e.nodes[1].String(), e.nodes[1].heard.kept(channel)...)
	e.ascending(e.nodes[1], channel)
	// A frame that the history has is repeated, as the first at a new home.
	e.move(channel)
	e.repeated(keepers[0])
	e.same("after a frame was repeated", e.after(reader, channel, adapter.Position{}).Frames, all.Frames)
}

func movingIsFollowedByRestored(e *env) {
	channels := []string{e.channel("room"), e.kind("h", "room"), e.channel("other")}
	left := e.kind("i", "room")
	for _, n := range e.nodes[1:] {
		for _, channel := range channels {
			e.join(channel, n)
		}
		e.join(left, n)
		e.unsubscribe(n, left)
	}
	for range 2 {
		e.move(channels[0])
		for _, channel := range channels {
			e.settleKept(e.nodes[0], channel, e.nodes[1:]...)
		}
	}
	for _, n := range e.nodes[1:] {
		for _, channel := range channels {
			e.until(func() bool {
				word := n.heard.notices(channel)
				return word == "" || strings.HasSuffix(word, "r")
			}, "%v gets Restored for %q, after %q", n, channel, n.heard.notices(channel))
		}
		e.inTurn(n, channels)
		if word := n.heard.notices(left); word != "" {
			e.failf("%v got the notices %q for a channel that it had unsubscribed from", n, word)
		}
	}
}

func movingIsInGoodOrder(e *env) {
	channel := e.channel("room")
	e.join(channel, e.nodes[1:]...)
	keepers := e.keepers(channel, e.nodes[:2]...)
	for range 2 {
		e.keepOn(keepers, 10)
		e.move(channel)
		e.settleKept(e.nodes[0], channel, e.nodes[1:]...)
	}
	e.halt(keepers)
	for _, from := range e.nodes[:2] {
		e.settleKept(from, channel, e.nodes[1:]...)
	}
	all := e.after(e.nodes[0], channel, adapter.Position{})
	for _, n := range e.nodes[1:] {
		e.goodOrder(n, channel, all.Frames)
	}
}

// goodOrder checks that n had received all frames of its epoch before Moving,
// unless the epoch continued.
func (e *env) goodOrder(n *node, channel string, all []adapter.KeptFrame) {
	moving := false
	var last adapter.Position // received before Moving
	for _, v := range n.heard.events(channel) {
		switch {
		case v.kind == 'm':
			moving = true
		case v.kind == 'i':
			moving = false
		case v.at.IsZero():
		case moving && v.at.Epoch > last.Epoch && !last.IsZero():
			for _, f := range all {
				if f.At.Epoch == last.Epoch && last.Offset < f.At.Offset {
					e.failf("%v got Moving before it received %v from the old home; its last frame was %v", n, show(f), last)
				}
			}
			moving, last = false, v.at
		default:
			moving, last = false, v.at
		}
	}
}

func historyEpochsTellALoss(e *env) {
	channel, reader := e.channel("room"), e.nodes[2]
	e.join(channel, e.nodes[1:]...)
	keepers := e.keepers(channel, e.nodes[:2]...)
	e.keepOn(keepers, 10)
	before := e.after(reader, channel, adapter.Position{})
	e.must(e.offer.Faults.Fail(e.ctx, channel), "Faults.Fail of %q", channel)
	e.keepOn(keepers, 10)
	e.halt(keepers)
	for _, from := range e.nodes[:2] {
		e.settleKept(from, channel, e.nodes[1:]...)
	}
	all := e.after(reader, channel, adapter.Position{})
	known := make(placed)
	e.place(known, "the history", all.Frames...)
	e.place(known, "the history before", before.Frames...)
	for _, n := range e.nodes[1:] {
		e.place(known, n.String(), n.heard.kept(channel)...)
		e.ascending(n, channel)
	}
	for _, k := range keepers {
		for _, a := range k.acks() {
			if a.exact {
				e.place(known, fmt.Sprintf("its publisher, %v", k.from), a.KeptFrame)
			}
		}
	}
	e.contiguous(all.Frames)
	e.chain(all)
	// lost reports whether an acknowledged frame is one that the history may
	// lack: its epoch is not whole and ended before it.
	lost := func(a ack) bool {
		for _, past := range all.Before {
			if past.Epoch == a.At.Epoch {
				return a.At.Offset > past.Last && !past.Whole
			}
		}
		return false
	}
	e.hasAcked(all.Frames, keepers, lost)

	// After a position that is on no epoch of the history, a page has what
	// comes after the last position at which both agreed.
	for _, past := range all.Before {
		since := adapter.Position{Epoch: past.Epoch, Offset: past.Last + 2}
		var want []adapter.KeptFrame
		for _, f := range all.Frames {
			if f.At.Offset > past.Last {
				want = append(want, f)
			}
		}
		e.same(fmt.Sprintf("after %v, of an epoch that ended at %d", since, past.Last), e.after(reader, channel, since).Frames, want)
	}
}
