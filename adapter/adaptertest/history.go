package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

// plenty is a retention that nothing in the suite reaches.
var plenty = adapter.Retention{Messages: 100_000, Age: time.Hour}

// readLimit is more messages than a case keeps in a channel.
const readLimit = 100_000

func (n *node) historian() adapter.Historian { return n.adapter.(adapter.Historian) }

// append appends a record. Any goroutine may call it.
func (n *node) append(ctx context.Context, channel string, r adapter.Record) (at adapter.Position, receivers int, err error) {
	err = n.onceConnected(ctx, func() error {
		done, turnErr := n.turn(ctx, channel)
		if turnErr != nil {
			return turnErr
		}
		defer done()
		at, receivers, err = n.historian().Append(ctx, channel, r)
		return err
	})
	return at, receivers, err
}

// newRecord returns a record of a publisher without a name.
func newRecord(frame string, messages int) adapter.Record {
	return adapter.Record{Frame: []byte(frame), Messages: messages, Time: time.Now(), Keep: plenty}
}

// text is a frame that contains its number of messages, for messagesOf. The
// adapter does not look into it.
func text(messages int, what string) string { return fmt.Sprintf("%d messages, %s", messages, what) }

// messagesOf returns the number of messages of a frame, 1 if the frame is no
// text.
func messagesOf(frame []byte) uint64 {
	var n uint64
	if _, err := fmt.Sscanf(string(frame[:min(len(frame), 20)]), "%d messages,", &n); err != nil {
		return 1
	}
	return n
}

// first returns the offset of a frame's first message.
func first(f adapter.KeptFrame) uint64 { return f.At.Offset - messagesOf(f.Frame) + 1 }

// mustAppend appends a record in a situation where that must succeed.
func (e *env) mustAppend(n *node, channel string, r adapter.Record) adapter.Position {
	at, _, err := n.append(e.ctx, channel, r)
	e.must(err, "%v: Append to %q", n, channel)
	return at
}

// keep appends a text with a number of messages.
func (e *env) keep(n *node, channel string, messages int, what string) adapter.KeptFrame {
	r := newRecord(text(messages, what), messages)
	return adapter.KeptFrame{At: e.mustAppend(n, channel, r), Frame: r.Frame}
}

// keepSome appends frames of one, two and three messages.
func (e *env) keepSome(n *node, channel string, frames int) []adapter.KeptFrame {
	var kept []adapter.KeptFrame
	for i := range frames {
		kept = append(kept, e.keep(n, channel, 1+i%3, fmt.Sprint(i)))
	}
	return kept
}

// query asks for everything after since.
func query(since adapter.Position) adapter.Query {
	return adapter.Query{Since: since, Limit: readLimit, Keep: plenty, Time: time.Now()}
}

// page reads a page, and tries again while the backend cannot be reached.
func (e *env) page(n *node, channel string, q adapter.Query) adapter.Page {
	var page adapter.Page
	var err error
	ok := e.within(e.ctx, func() bool {
		ctx, cancel := context.WithTimeout(e.ctx, 2*time.Second)
		defer cancel()
		var failed error
		if page, failed = n.historian().History(ctx, channel, q); failed == nil || err == nil || e.ctx.Err() == nil {
			err = failed // says more than that the time of the case is over
		}
		return err == nil || errors.Is(err, adapter.ErrClosed) || errors.Is(err, adapter.ErrRefused)
	})
	if !ok || err != nil {
		e.failf("%v: History of %q after %v: %w", n, channel, q.Since, err)
	}
	return page
}

// pages reads all pages from q on. The result is one long page with First of
// the first, and the other fields of the last.
func (e *env) pages(n *node, channel string, q adapter.Query) adapter.Page {
	var all []adapter.KeptFrame
	var first uint64
	for number := 1; ; number++ {
		page := e.page(n, channel, q)
		if number == 1 {
			first = page.First
		}
		page.First = first
		all = append(all, page.Frames...)
		if !page.More {
			page.Frames = all
			return page
		}
		if len(page.Frames) == 0 {
			e.failf("History of %q after %v is a page without frames, but More is true", channel, q.Since)
		}
		q.Since = page.Frames[len(page.Frames)-1].At
	}
}

// after reads everything after since.
func (e *env) after(n *node, channel string, since adapter.Position) adapter.Page {
	return e.pages(n, channel, query(since))
}

// same checks that the frames are those wanted, at their positions.
func (e *env) same(what string, got, want []adapter.KeptFrame) {
	for i := range min(len(got), len(want)) {
		if got[i].At != want[i].At || string(got[i].Frame) != string(want[i].Frame) {
			e.failf("%s: number %d is %v, want %v", what, i+1, show(got[i]), show(want[i]))
		}
	}
	switch {
	case len(got) > len(want):
		e.failf("%s: %d frames, want %d; the first unwanted one is %v", what, len(got), len(want), show(got[len(want)]))
	case len(got) < len(want):
		e.failf("%s: %d frames, want %d; the first missing one is %v", what, len(got), len(want), show(want[len(got)]))
	}
}

func show(f adapter.KeptFrame) event { return event{kind: 'f', frame: string(f.Frame), at: f.At} }

// endsAt reports whether a message is the last one of a page's history. The
// history may have begun an epoch after it that has no message yet.
func endsAt(page *adapter.Page, last adapter.Position) bool {
	return page.Head == last || page.Head.Offset == last.Offset && page.Head.Epoch > last.Epoch &&
		slices.Contains(page.Before, adapter.PastEpoch{Epoch: last.Epoch, Last: last.Offset, Whole: true})
}

// contiguous checks that the frames follow each other without a gap. Epochs may
// change, as long as they grow.
func (e *env) contiguous(frames []adapter.KeptFrame) {
	for i, f := range frames {
		if messagesOf(f.Frame) > f.At.Offset {
			e.failf("history: %v has %d messages, so its offset is too small", show(f), messagesOf(f.Frame))
		}
		if i == 0 {
			continue
		}
		if before := frames[i-1]; first(f) != before.At.Offset+1 || f.At.Epoch < before.At.Epoch {
			e.failf("history: %v, of %d messages, comes after %v", show(f), messagesOf(f.Frame), show(before))
		}
	}
}

// placed maps the position of each message to its frame.
type placed map[adapter.Position]string

// place adds the messages of frames. It is a failure if a message of another
// frame has the same position.
func (e *env) place(p placed, who string, frames ...adapter.KeptFrame) {
	for _, f := range frames {
		for offset := first(f); offset <= f.At.Offset; offset++ {
			at := adapter.Position{Epoch: f.At.Epoch, Offset: offset}
			before, ok := p[at]
			if ok && before != string(f.Frame) {
				e.failf("%v is the position of %q and, for %s, of %q", at, clip(before), who, clip(string(f.Frame)))
			}
			p[at] = string(f.Frame)
		}
	}
}

// settleKept is settle with frames that are kept.
func (e *env) settleKept(from *node, channel string, to ...*node) {
	e.settleBy("Append", from, channel, to, func(ctx context.Context, frame string) error {
		_, _, err := from.append(ctx, channel, newRecord(frame, 1))
		return err
	})
}

// arrived gives kept frames the time to arrive. A backend may bring them by
// another way than what Publish sends, so that settle proves nothing of them.
// Whether they have come is for the case to judge.
func (e *env) arrived(n *node, channel string, frames []adapter.KeptFrame) {
	if len(frames) == 0 {
		return
	}
	last := string(frames[len(frames)-1].Frame)
	e.soon(500*time.Millisecond, func() bool { return n.heard.count(channel, last) > 0 })
}

// A keeper appends to one channel, with pauses. It numbers its messages as a
// hub does, and repeats a frame until the backend has it.
type keeper struct {
	from    *node
	channel string
	task    *task
	stop    context.CancelFunc

	mu     sync.Mutex
	acked  []ack
	last   error          // of the last Append
	latest adapter.Record // the last that was acknowledged
}

// String says how the last Append ended, for messages of failures.
func (k *keeper) String() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return fmt.Sprintf("Append of %v to %q (%d acknowledged, the last error: %v)", k.from, k.channel, len(k.acked), k.last)
}

// An ack is a frame that the backend has acknowledged.
type ack struct {
	adapter.KeptFrame
	exact bool // the position is the frame's; otherwise it may be a later one
}

// keepers has nodes append to a channel until halt.
func (e *env) keepers(channel string, nodes ...*node) []*keeper {
	var list []*keeper
	for _, n := range nodes {
		ctx, stop := context.WithCancel(e.ctx)
		k := &keeper{from: n, channel: channel, stop: stop}
		e.atEnd(stop)
		k.task = e.start(func() error { return k.run(ctx, e.ctx) })
		list = append(list, k)
	}
	return list
}

// halt stops keepers when the frames that they are appending are acknowledged.
func (e *env) halt(keepers []*keeper) {
	for _, k := range keepers {
		k.stop()
	}
	for _, k := range keepers {
		e.must(e.wait(k.task, "%v: Append to %q succeeds", k.from, k.channel), "%v: Append to %q", k.from, k.channel)
	}
}

// keepOn waits until each keeper has by more frames acknowledged.
func (e *env) keepOn(keepers []*keeper, by int) {
	starts := make([]int, len(keepers))
	for i, k := range keepers {
		starts[i] = len(k.acks())
	}
	for i, k := range keepers {
		e.until(func() bool { return len(k.acks()) >= starts[i]+by }, "%v goes on", k)
	}
}

func (k *keeper) acks() []ack {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.acked[:len(k.acked):len(k.acked)]
}

// minPace and maxPace bound the pause of a keeper between two appends.
const (
	minPace = 2 * time.Millisecond
	maxPace = 100 * time.Millisecond
)

// run appends until ctx ends, and finishes the last append before life ends. It
// pauses for as long as an append takes, up to maxPace: where one waits for
// what another has appended meanwhile, each has its turn.
func (k *keeper) run(ctx, life context.Context) error {
	next := uint64(1)
	for i := 0; ctx.Err() == nil; i++ {
		messages := 1 + i%3
		r := newRecord(text(messages, fmt.Sprintf("%d of %v", i, k.from)), messages)
		r.Publisher, r.Stream, r.Seq = fmt.Sprint("keeper ", k.from.index), 1, next
		next += uint64(messages)
		began := time.Now()
		if err := k.repeat(life, r); err != nil {
			return err
		}
		select {
		case <-time.After(min(max(time.Since(began), minPace), maxPace)):
		case <-ctx.Done():
		}
	}
	return nil
}

// repeat appends until the backend has the frame.
func (k *keeper) repeat(ctx context.Context, r adapter.Record) error {
	for attempt := 1; ; attempt++ {
		one, cancel := context.WithTimeout(ctx, time.Second)
		at, receivers, err := k.from.append(one, k.channel, r)
		cancel()
		if ctx.Err() == nil {
			k.ended(err)
		}
		switch {
		case err == nil:
			k.mu.Lock()
			defer k.mu.Unlock()
			k.latest = r
			k.acked = append(k.acked, ack{
				KeptFrame: adapter.KeptFrame{At: at, Frame: r.Frame},
				exact:     attempt == 1 || receivers >= 0,
			})
			return nil
		case ctx.Err() != nil, errors.Is(err, adapter.ErrRefused):
			return err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// repeated appends the last frame of a keeper, which was halted, again. The
// backend has it.
func (e *env) repeated(k *keeper) {
	last := k.acks()[len(k.acks())-1]
	var at adapter.Position
	receivers := 0
	var err error
	e.until(func() bool { // a home that is new may refuse at first
		at, receivers, err = k.from.append(e.ctx, k.channel, k.latest)
		return err == nil || errors.Is(err, adapter.ErrRefused)
	}, "Append of %v, which is kept, succeeds", show(last.KeptFrame))
	e.must(err, "Append of %v again", show(last.KeptFrame))
	if receivers != -1 || at.Before(last.At) {
		e.failf("Append of %v again returned %v and %d receivers, want that position or a later one, and -1", show(last.KeptFrame), at, receivers)
	}
}

// ended notes how an Append has ended.
func (k *keeper) ended(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.last = err
}

// hasAcked checks that a history has every acknowledged frame once. It may lack
// those for which lost returns true, if lost is not nil.
func (e *env) hasAcked(frames []adapter.KeptFrame, keepers []*keeper, lost func(ack) bool) {
	places := make(map[string]adapter.Position)
	for _, f := range frames {
		if at, twice := places[string(f.Frame)]; twice {
			e.failf("history: %q is kept twice, at %v and %v", f.Frame, at, f.At)
		}
		places[string(f.Frame)] = f.At
	}
	for _, k := range keepers {
		for _, a := range k.acks() {
			at, ok := places[string(a.Frame)]
			switch {
			case lost != nil && lost(a):
			case !ok:
				e.failf("history: %v was acknowledged, but is not in the history", show(a.KeptFrame))
			case a.exact && at != a.At:
				e.failf("history: %v was acknowledged, but is at %v in the history", show(a.KeptFrame), at)
			case a.At.Before(at):
				e.failf("history: %v was recognised as repeated, but is at %v, which is later", show(a.KeptFrame), at)
			}
		}
	}
}
