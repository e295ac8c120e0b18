package questions

import (
	"context"
	"errors"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/gate"
)

// AskHere puts a question to this hub alone, without the backend. It calls take
// for each entry of the answer by itself, and at the end for an answer that is
// final. Its errors are those of Ask.
func (s *Switchboard) AskHere(ctx context.Context, q *control.Question, take Take) error {
	op := s.env.Ops.Begin()
	if op == nil {
		return adapter.ErrClosed
	}
	defer op.End()
	ctx, release := s.env.Bound(ctx)
	defer release()
	t := &here{hub: s.env.Notices.Hub, op: op, take: take}
	count, err := s.env.Perform(ctx, t.hub, q, nil, t)
	if q.Op == control.OpAsk && ctx.Err() != nil && err != nil && !errors.Is(err, errStopped) {
		return &Incomplete{Err: s.env.Explain(ctx, err)} // members have not answered
	}
	if err == nil {
		err = t.give(&control.Answer{Status: control.StatusLast, Count: count})
	}
	if errors.Is(err, errStopped) {
		return nil
	}
	return s.env.Explain(ctx, err)
}

// answersHere reports whether this hub can answer a question that did not come
// back to it, since its link is down: its own members are known without the
// backend. A command has one order with messages, and members of this hub that
// are asked something have to answer.
func (a *asking) answersHere() bool {
	switch a.question.Op {
	case control.OpMembers, control.OpCount, control.OpHubs:
		return a.consumed[a.own()] == 0
	}
	return false
}

func (a *asking) own() uint64 { return a.board.env.Notices.Hub }

// ownIsLeft reports whether all hubs but this one have answered, and it can do
// so here.
func (a *asking) ownIsLeft() bool { return a.answersHere() && a.state.WaitsOnlyFor(a.own()) }

// endHere ends a question that only this hub has to answer, or, with a cause,
// whose time is over. This hub answers here if it can.
func (a *asking) endHere(cause error) error {
	a.abandon()
	if a.answersHere() {
		ctx := a.ctx
		if ctx.Err() != nil {
			ctx = context.WithoutCancel(ctx) // the answer needs no time
		}
		var err error
		// AskHere is an operation of its own.
		if !a.op.Outside(func() { err = a.board.AskHere(ctx, &a.question, a.take) }) {
			return adapter.ErrClosed
		}
		if err == nil {
			a.state.Here(a.own())
		} else if cause == nil {
			cause = err
		}
	}
	if a.state.Done() {
		return a.failures()
	}
	return a.incomplete(cause)
}

// here is the Taker of a question that only this hub answers.
type here struct {
	hub  uint64
	op   *gate.Operation
	take Take
	page control.Answer
}

// errStopped means that the caller wants no more.
var errStopped = errors.New("stopped")

// Put implements Taker.
func (t *here) Put(e *control.Entry) error {
	t.page.Status, t.page.Entries = control.StatusMore, append(t.page.Entries[:0], *e)
	return t.give(&t.page)
}

// Flush implements Taker.
func (t *here) Flush(count uint64) error {
	return t.give(&control.Answer{Status: control.StatusMore, Count: count})
}

// Rest implements Taker.
func (*here) Rest() {}

// give has the caller take a page.
func (t *here) give(a *control.Answer) error {
	more := false
	if !t.op.Outside(func() { more = t.take(t.hub, a) }) {
		return adapter.ErrClosed
	}
	if !more {
		return errStopped
	}
	return nil
}
