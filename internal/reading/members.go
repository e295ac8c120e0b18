package reading

import (
	"context"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/clock"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/replay"
	"github.com/fanoutgo/fanout/internal/work"
)

// Replay is a member on its way to the log.
type Replay = replay.Replay[item.Entry]

// A Member is a member that comes from behind.
type Member interface {
	// Advance gives the member its next part, if that is there. It is called
	// without locks.
	Advance() (Step, error)
	// WhenMoved returns a channel that is closed when the member no longer needs a
	// reading. The lock of the room is held during the call.
	WhenMoved() <-chan struct{}
	// Wait waits until one of the channels is closed. It ends earlier, with an
	// error, with ctx, the member or the hub. It is called without locks.
	Wait(ctx context.Context, c, moved <-chan struct{}) error
	// Done returns a channel that is closed when the member has ended.
	Done() <-chan struct{}
}

// A Step is the result of an Advance.
type Step struct {
	// Verdict is Complete if the member has a part, or needs none.
	Verdict replay.Verdict
	Replay  *Replay
	// Changed, with LogBehind, is closed when the log may have caught up.
	Changed <-chan struct{}
}

// Assemble gives a replay its next part, or says what is needed first. With
// Unreadable, the error says why the history cannot be read.
func (h *History[H, W]) Assemble(rp *Replay) (replay.Verdict, error) {
	h.host.Mutex().AssertHeld()
	f := &h.Follower
	log := replay.Log{At: f.Position(), Known: f.Known(), Blind: f.Unreadable(), Refused: f.Err() != nil}
	v := h.Store.Assemble(rp, log, h.Keep, clock.Now())
	if v == replay.Unreadable {
		return v, f.Err()
	}
	return v, nil
}

// AwaitLog makes the log catch up, and returns a channel that is closed when it
// may have done so.
func (h *History[H, W]) AwaitLog() <-chan struct{} {
	h.host.Mutex().AssertHeld()
	if h.host.Follows() {
		h.CatchUp()
	}
	return h.host.Changed()
}

// Await returns when a member has its next part or has left, or when ctx or the
// member has ended; the caller finds out which. It returns an error if the
// history cannot be read. If it returns because of an end, the error may be
// nil.
func (h *History[H, W]) Await(ctx context.Context, m Member) error {
	for {
		s, err := m.Advance()
		switch {
		case err != nil || s.Verdict == replay.Complete:
			return err
		case s.Verdict == replay.NeedsReading:
			err = h.Fetch(ctx, m, s.Replay)
		default:
			select {
			case <-s.Changed:
			case <-ctx.Done():
			case <-m.Done():
			}
		}
		if err != nil || ctx.Err() != nil || isOver(m.Done()) {
			return err
		}
	}
}

func isOver(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// Fetch waits until a page has been read that a replay needs. Members at the
// same place share readings. Fetch returns nil also when the member has moved.
func (h *History[H, W]) Fetch(ctx context.Context, m Member, rp *Replay) error {
	mu := h.host.Mutex()
	mu.Lock()
	if h.Store.Has(rp, h.Follower.Position(), h.Keep, clock.Now()) { // it has come meanwhile
		mu.Unlock()
		return nil
	}
	q := h.Store.Join(rp.At())
	q.Done = make(chan struct{})
	h.widen()
	h.serve()
	moved := m.WhenMoved()
	mu.Unlock()
	err := m.Wait(ctx, q.Done, moved)
	mu.Lock()
	defer mu.Unlock()
	if !isOver(q.Done) {
		h.Store.Leave(q)
		return err
	}
	rp.Deliver(q.Page)
	return q.Err
}

// serve begins to read the history for the members that wait for it, unless
// that has begun.
func (h *History[H, W]) serve() {
	h.host.Mutex().AssertHeld()
	if h.Store.Start() {
		h.host.Reader().Pool.Add(func(one *work.Task) { h.readForMembers(one, 0) })
	}
}

// readForMembers reads one page for the members that wait, and asks for the
// next one, for when it is the room's turn again.
func (h *History[H, W]) readForMembers(one *work.Task, delay retry) {
	reader, mu := h.host.Reader(), h.host.Mutex()
	mu.Lock()
	since, ok := h.Store.Begin(h.Keep.Messages <= h.host.Window().Messages)
	generation := h.Follower.Generation()
	mu.Unlock()
	if !ok {
		return
	}
	page, err := reader.page(one.Context(), h.host.Channel(), query(since, h.Keep))
	o, err := judge(&page, since, err)
	delay = delay.after(o)
	if o == stuck && delay.hopeless() {
		o = refused
	}
	var p *Page
	if o == read {
		p = reader.decode(h.host.Channel(), since, &page)
	}
	if reader.Context.Err() != nil {
		o, err = refused, adapter.ErrClosed
	}
	if o == failed || o == stuck { // the next attempt does nothing if no member waits by then
		reader.Pool.Again(one, time.Duration(delay), func(one *work.Task) { h.readForMembers(one, delay) })
		return
	}
	mu.Lock()
	defer mu.Unlock()
	var served []*replay.Request[item.Entry]
	if o == read {
		served = h.deliver(p, generation)
	} else {
		served = h.Store.Fail(err)
	}
	for _, q := range served {
		close(q.Done)
	}
	h.serve()
}

// deliver returns the requests that a page serves. It remembers the page, if
// the room was not unsubscribed since the generation.
func (h *History[H, W]) deliver(p *Page, generation int) []*replay.Request[item.Entry] {
	h.host.Mutex().AssertHeld()
	if h.Follower.Current(generation) && h.Follower.Known() {
		h.Store.Remember(p, h.Follower.Position(), h.host.Window())
		h.expire()
	}
	return h.Store.Deliver(p)
}
