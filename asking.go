package fanout

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/gate"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/questions"
	"github.com/fanoutgo/fanout/internal/roomlog"
)

// query puts a question to the hubs of the selection, or to this one alone if
// it is Local, and calls take for each page of an answer.
func (s Selection) query(ctx context.Context, op string, q *control.Question, take questions.Take) error {
	err := s.check(nil)
	switch {
	case err != nil:
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case s.local:
		err = s.queryHere(ctx, q, take)
	default:
		err = s.ask(ctx, q, take)
	}
	if _, partial := errors.AsType[*PartialError](err); partial {
		return err // it says itself what it is about
	}
	return failed(op, err)
}

// queryHere is query for a selection that is Local.
func (s Selection) queryHere(ctx context.Context, q *control.Question, take questions.Take) error {
	h := s.hub
	op := h.ops.Begin()
	if op == nil {
		return ErrClosed
	}
	defer op.End()
	ctx, release := h.bound(ctx)
	defer release()
	q.Names, q.Except, q.ExceptRooms, q.Scope = s.names, s.except, s.exceptRooms, s.scope()
	t := &localTaker{hub: h, op: op, take: take}
	count, err := h.perform(ctx, h.num, q, nil, t)
	if errors.Is(err, errStopped) {
		return nil
	}
	if q.Op == control.OpAsk && ctx.Err() != nil && err != nil {
		return &PartialError{Err: h.explain(ctx, err)}
	}
	if err == nil {
		err = t.give(&control.Answer{Status: control.StatusLast, Count: count})
		if errors.Is(err, errStopped) {
			return nil
		}
	}
	return h.explain(ctx, err)
}

// A localTaker hands each entry on at once.
type localTaker struct {
	hub  *Hub
	op   *gate.Operation
	take questions.Take
	page control.Answer
}

// errStopped means that the caller wants no more.
var errStopped = errors.New("stopped")

// Put implements questions.Taker.
func (t *localTaker) Put(e *control.Entry) error {
	t.page.Status, t.page.Entries = control.StatusMore, append(t.page.Entries[:0], *e)
	return t.give(&t.page)
}

// give has the caller take a page.
func (t *localTaker) give(a *control.Answer) error {
	more := false
	if !t.op.Outside(func() { more = t.take(t.hub.num, a) }) {
		return ErrClosed
	}
	if !more {
		return errStopped
	}
	return nil
}

// Rest implements questions.Taker.
func (*localTaker) Rest() {}

// Flush implements questions.Taker.
func (t *localTaker) Flush(count uint64) error {
	return t.give(&control.Answer{Status: control.StatusMore, Count: count})
}

// scope returns what kind of names a selection has.
func (s Selection) scope() control.Scope {
	switch s.kind {
	case toEveryone:
		return control.ScopeEveryone
	case toMembers:
		return control.ScopeMembers
	case toUsers:
		return control.ScopeUsers
	}
	return control.ScopeRooms
}

// ask puts a question to all hubs that have members of the selection, and calls
// take for each page of their answers. It returns when all have answered, when
// take returns false, or with an error.
func (s Selection) ask(ctx context.Context, q *control.Question, take questions.Take) error {
	q.Names, q.Except, q.ExceptRooms = s.names, s.except, s.exceptRooms
	err := s.hub.ask(ctx, q, take, s.lanes)
	incomplete, is := errors.AsType[*questions.Incomplete](err)
	if !is {
		return err
	}
	partial := &PartialError{Unknown: incomplete.Unknown, Err: incomplete.Err}
	for _, k := range incomplete.Silent {
		partial.Silent = append(partial.Silent, SilentHub{hubID(k.Hub), k.Heard})
	}
	for _, f := range incomplete.Failed {
		partial.Failed = append(partial.Failed, FailedHub{hubID(f.Hub), f.Why})
	}
	return partial
}

// ask puts a question to the hubs that listen to some channels; see
// Switchboard.Ask. The function lanes returns the channels, and sets the scope.
func (h *Hub) ask(ctx context.Context, q *control.Question, take questions.Take, lanes func(*control.Question) []questions.Lane) error {
	op := h.ops.Begin()
	if op == nil {
		return ErrClosed
	}
	defer op.End()
	ctx, release := h.bound(ctx)
	defer release()
	if err := h.awaitOwn(ctx, nil); err != nil {
		return h.explain(ctx, err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		q.Wait = uint64(max(time.Until(deadline).Milliseconds(), 1))
	} else {
		q.Wait = uint64(h.opts.PublishTimeout.Milliseconds())
	}
	all := lanes(q)
	defer releaseLanes(all)
	err := h.switchboard.Ask(ctx, op, q, all, take)
	if incomplete, is := errors.AsType[*questions.Incomplete](err); is {
		incomplete.Err = h.explain(ctx, incomplete.Err)
	}
	return err
}

func releaseLanes(lanes []questions.Lane) {
	for _, l := range lanes {
		l.Out.Release()
	}
}

// lanes returns the channels of a selection, held, and completes the question.
func (s Selection) lanes(q *control.Question) (lanes []questions.Lane) {
	h := s.hub
	q.Scope = s.scope()
	switch s.kind {
	case toEveryone:
		out := h.everyone.outgoing()
		out.Hold()
		return []questions.Lane{{Out: out}}
	case toMembers:
		byHub := make(map[string]int)
		for _, id := range s.names {
			hub, _ := hubOf(id) // checked before
			i, known := byHub[hub]
			if !known {
				i = len(lanes)
				byHub[hub] = i
				lanes = append(lanes, h.laneTo(hub))
				lanes[i].Which = uint64(i)
			}
			lanes[i].Names = append(lanes[i].Names, id)
		}
		return lanes
	}
	complete := false
	defer func() {
		if !complete { // Options.Room has panicked
			releaseLanes(lanes)
		}
	}()
	for i, name := range s.names {
		room := name
		if s.kind == toUsers {
			room = "" // a user's channel is a room without a name
		}
		out := h.acquire(room, h.channelOf(q.Scope, name)).outgoing()
		lanes = append(lanes, questions.Lane{Out: out, Names: s.names, Which: uint64(i)})
	}
	complete = true
	return lanes
}

// laneTo returns the inbox of a hub as a channel for questions.
func (h *Hub) laneTo(hub string) questions.Lane {
	num, _ := strconv.ParseUint(hub, 16, 64) // checked before
	return questions.Lane{Out: h.inboxes.To(hub), Inbox: true, Hub: num}
}

// poll puts a question to members, and hands on their answers until all have
// answered or ended.
func (h *Hub) poll(ctx context.Context, sender string, q *control.Question, c *chosen, t questions.Taker) (count uint64, err error) {
	p := h.switchboard.Poll(q.Data)
	defer p.Close()
	count, err = c.each(ctx, func(m *Member) error {
		p.Add(m.num)
		m.send(roomlog.Gap{}, []item.Entry{{Data: p.Data, Sender: sender}})
		if m.refusal() != nil { // it may not have got it
			p.Gone(m.num)
		}
		return nil
	})
	if err != nil || count == 0 {
		return count, err
	}
	return count, p.Collect(ctx, count, t)
}
