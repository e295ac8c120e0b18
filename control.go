package fanout

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/fanoutgo/fanout/internal/announcer"
	"github.com/fanoutgo/fanout/internal/ask"
	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/lookout"
	"github.com/fanoutgo/fanout/internal/notices"
	"github.com/fanoutgo/fanout/internal/questions"
	"github.com/fanoutgo/fanout/internal/watch"
	"github.com/fanoutgo/fanout/internal/wire"
)

// initNotices makes what tells other hubs about this one, and asks them.
func (h *Hub) initNotices() {
	h.notices = notices.Sender{
		Hub: h.num, Context: h.ctx, Go: h.wg.Go,
		Everyone: func() notices.Outbox { return h.everyone.way() },
		Inbox:    func(hub uint64) notices.Outbox { return h.wayTo(hubID(hub)) },
	}
	h.hellos.Init(&h.notices, h.num)
	h.lookout.Init(&lookout.Env{Notices: &h.notices, Reply: h.switchboard.Reply, Changed: h.hubsChanged})
	h.switchboard.Init(&questions.Env{
		Notices: &h.notices, Ops: h.ops, Closing: h.closing,
		Known: h.known, Listens: h.listens, Perform: h.perform, Presence: h.announced,
		Received:   h.lookout.Receive,
		Malformed:  func(err error) { h.malformed(h.inbox.channel, err) },
		SweepLater: h.janitor.wake,
	})
	h.announcer.Init(&announcer.Env{
		Notices: &h.notices, Ask: h.ask, NewLife: h.newStream, IsGone: h.lookout.IsGone, Malformed: h.malformed,
		Lane: func(room string) questions.Lane {
			return questions.Lane{Out: h.acquire(room, h.names.Room(room)).way()}
		},
	})
}

// hubsChanged takes note of the hubs that have come and gone.
func (h *Hub) hubsChanged(a *watch.Actions) {
	for _, hub := range slices.Concat(a.Died, a.Left) {
		h.hellos.Gone(hub)
		h.switchboard.HubGone(hub)
	}
	for _, hub := range a.Died {
		h.announcer.HubGone(hub, false)
	}
	for _, hub := range a.Left {
		h.announcer.HubGone(hub, true)
	}
	for _, hub := range a.Came {
		h.announcer.HubCame(hub)
	}
	if a.Back {
		h.announcer.Back()
	}
}

// known returns the hubs that are there, with this one.
func (h *Hub) known() []ask.Known {
	there := []ask.Known{{Hub: h.num, Heard: time.Now()}}
	if h.alone {
		return there
	}
	for hub, heard := range h.lookout.Others(h.hellos.Others()) {
		there = append(there, ask.Known{Hub: hub, Heard: heard})
	}
	return there
}

// notice takes a notice from the adapter: a hello, a control notice, or one
// that this release does not know, which is none of its business. A nil room is
// the hub's inbox.
func (h *Hub) notice(rs *roomState, channel string, frame []byte) {
	from, payload, err := wire.DecodeControl(frame)
	switch {
	case errors.Is(err, wire.ErrNotice):
		h.receiveNotice(channel, frame)
		return
	case err != nil:
		h.malformed(channel, err)
		return
	}
	h.hellos.Heard(from)
	switch {
	case control.KindOf(payload) == control.KindAnnouncement:
		if rs != nil && rs.presence() != nil { // it has a place in the room's log
			rs.presence().Receive(from, payload)
		}
	case rs != nil:
		h.switchboard.Put(from, payload, roomPlace{rs, rs.log.Mark()})
	default:
		h.switchboard.Put(from, payload, nil)
	}
}

// A roomPlace is where a question has come: the end of a room's log by then.
type roomPlace struct {
	room *roomState
	mark uint64
}

// listens returns the indexes of the names of a question whose channels the hub
// is subscribed to.
func (h *Hub) listens(q *control.Question) (which []uint64) {
	if q.Scope == control.ScopeMembers {
		return []uint64{q.Which}
	}
	if q.Scope == control.ScopeEveryone {
		return []uint64{0}
	}
	for i, name := range q.Names {
		rs := h.lookup(h.channelOf(q.Scope, name))
		if rs == nil {
			continue
		}
		rs.mu.Lock()
		if rs.sub == subOn {
			which = append(which, uint64(i))
		}
		rs.mu.Unlock()
	}
	return which
}

// channelOf returns the channel of a name in a question.
func (h *Hub) channelOf(scope control.Scope, name string) string {
	if scope == control.ScopeUsers {
		return h.names.User(name)
	}
	return h.names.Room(name)
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
	defer func() {
		for _, l := range all {
			l.Out.Release()
		}
	}()
	err := h.switchboard.Ask(ctx, op, q, all, take)
	if incomplete, is := errors.AsType[*questions.Incomplete](err); is {
		incomplete.Err = h.explain(ctx, incomplete.Err)
	}
	return err
}

// lanes returns the channels of a selection, and completes the question.
func (s Selection) lanes(q *control.Question) (lanes []questions.Lane) {
	h := s.hub
	q.Scope = s.scope()
	switch s.kind {
	case toEveryone:
		o := h.everyone.way()
		o.Hold()
		return []questions.Lane{{Out: o}}
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
	for i, name := range s.names {
		room := name
		if s.kind == toUsers {
			room = "" // a user's channel is a room without a name
		}
		o := h.acquire(room, h.channelOf(q.Scope, name)).way()
		lanes = append(lanes, questions.Lane{Out: o, Names: s.names, Which: uint64(i)})
	}
	return lanes
}

// laneTo returns the inbox of a hub as a channel for questions.
func (h *Hub) laneTo(hub string) questions.Lane {
	num, _ := strconv.ParseUint(hub, 16, 64) // checked before
	return questions.Lane{Out: h.wayTo(hub), Inbox: true, Hub: num}
}
