package fanout

import (
	"context"
	"errors"

	"github.com/fanoutgo/fanout/internal/control"
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
		q.Names, q.Except, q.ExceptRooms, q.Scope = s.names, s.except, s.exceptRooms, s.scope()
		err = partialError(s.hub.switchboard.AskHere(ctx, q, take))
	default:
		q.Names, q.Except, q.ExceptRooms, q.Scope = s.names, s.except, s.exceptRooms, s.scope()
		err = partialError(s.hub.switchboard.Ask(ctx, q, take, s.lanes))
	}
	if _, partial := errors.AsType[*PartialError](err); partial {
		return err // it says itself what it is about
	}
	return failed(op, err)
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

// partialError returns the error of a question as users get it.
func partialError(err error) error {
	incomplete, is := errors.AsType[*questions.Incomplete](err)
	if !is {
		return err
	}
	e := &PartialError{Unknown: incomplete.Unknown, Err: incomplete.Err}
	for _, k := range incomplete.Silent {
		e.Silent = append(e.Silent, SilentHub{hubID(k.Hub), k.Heard})
	}
	for _, f := range incomplete.Failed {
		e.Failed = append(e.Failed, FailedHub{hubID(f.Hub), f.Why})
	}
	return e
}

// lanes returns the channels in which a question to the selection travels,
// held.
func (s Selection) lanes(q *control.Question) (lanes []questions.Lane) {
	h := s.hub
	switch s.kind {
	case toEveryone:
		o := h.everyone.outbox()
		o.Hold()
		return []questions.Lane{{Out: o}}
	case toMembers:
		return questions.InboxLanes(&h.notices, s.names)
	}
	complete := false
	defer func() {
		if !complete { // Options.Room has panicked
			questions.Release(lanes)
		}
	}()
	for i, name := range s.names {
		room := name
		if s.kind == toUsers {
			room = "" // a user's channel is a room without a name
		}
		o := h.acquire(room, h.channelOf(q.Scope, name)).outbox()
		lanes = append(lanes, questions.Lane{Out: o, Names: s.names, Which: uint64(i)})
	}
	complete = true
	return lanes
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
