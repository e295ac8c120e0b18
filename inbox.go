package fanout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/internal/announcer"
	"github.com/fanoutgo/fanout/internal/ask"
	"github.com/fanoutgo/fanout/internal/batch"
	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/journal"
	"github.com/fanoutgo/fanout/internal/life"
	"github.com/fanoutgo/fanout/internal/lookout"
	"github.com/fanoutgo/fanout/internal/notices"
	"github.com/fanoutgo/fanout/internal/questions"
	"github.com/fanoutgo/fanout/internal/roomlog"
	"github.com/fanoutgo/fanout/internal/trial"
	"github.com/fanoutgo/fanout/internal/watch"
	"github.com/fanoutgo/fanout/internal/wire"
)

// initNotices prepares what hubs tell and ask each other.
func (h *Hub) initNotices() {
	h.notices = notices.Sender{
		Hub: h.num, Context: h.ctx, Go: h.wg.Go,
		Everyone: func() notices.Channel { return h.everyone.outgoing() },
		Inbox:    func(hub uint64) notices.Channel { return h.inboxes.To(hubID(hub)) },
	}
	h.hellos.Init(&h.notices, h.num)
	h.lookout.Init(&lookout.Env{Notices: &h.notices, Reply: h.switchboard.Reply, Changed: h.hubsChanged})
	h.switchboard.Init(&questions.Env{
		Notices: &h.notices, Ops: h.ops, Closing: h.closing,
		Bound: h.bound, Timeout: h.opts.PublishTimeout, Explain: h.explain,
		AwaitOwn: func(ctx context.Context) error { return h.awaitOwn(ctx, nil) },
		Known:    h.known, Listens: h.listens, Perform: h.performer.Perform, Presence: h.announced,
		Received: h.lookout.Receive, IsGone: h.lookout.IsGone, IsNew: h.lookout.IsNew, IsWatched: h.lookout.IsWatched, NoteUncounted: h.lookout.SetUncounted,
		Malformed:  func(err error) { h.malformed(h.inboxChannel, err) },
		SweepLater: h.janitor.wake,
	})
	h.initPerformer()
	h.announcer.Init(&announcer.Env{
		Notices: &h.notices, Go: h.pool.Aside, Ask: h.switchboard.Ask, NewLife: h.newStream, Malformed: h.malformed,
		IsGone: h.lookout.IsGone, Since: h.lookout.Since, IsNew: h.lookout.IsNew, Uncounted: h.lookout.Uncounted,
		Lane: func(room string) questions.Lane {
			return questions.Lane{Out: h.acquire(room, h.names.Room(room)).outgoing()}
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
		h.announcer.HubCame(hub, slices.Contains(a.Met, hub))
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
// that this release does not know, which it ignores. A nil room is the hub's
// inbox.
func (h *Hub) notice(r *room, channel string, frame []byte) {
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
		if r != nil && r.presence() != nil { // it has a place in the room's log
			r.presence().Receive(from, payload)
		}
	case r != nil:
		h.switchboard.Put(from, payload, roomPlace{r, r.log.Mark()})
	default:
		h.switchboard.Put(from, payload, nil)
	}
}

// A roomPlace is the place where a question came: the end of a room's log at
// that time.
type roomPlace struct {
	room *room
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
		r := h.lookup(h.channelOf(q.Scope, name))
		if r == nil {
			continue
		}
		r.mu.Lock()
		if r.life.State() == life.On {
			which = append(which, uint64(i))
		}
		r.mu.Unlock()
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

// receiveDirect passes direct messages to their members. A missing message may
// have been for any of them, so all of them get a gap of unknown size.
func (h *Hub) receiveDirect(frame []byte) {
	var f batch.Batch
	switch err := f.Open(frame); {
	case errors.Is(err, wire.ErrNotice):
		h.notice(nil, h.inboxChannel, frame)
		return
	case err != nil:
		h.malformed(h.inboxChannel, err)
		h.tellAll()
		return
	}
	if f.Foreign() {
		return // it names no member
	}
	head := f.Head
	h.hellos.Heard(head.Hub)
	v, lost := h.inbox.Accept(&head, head.Hub == h.num)
	h.stats.received.Add(uint64(head.Count))
	h.stats.missed.Add(uint64(v.Lost()))
	h.stats.repeated.Add(uint64(v.Repeated))
	if lost {
		h.tellAll()
	}
	var u batch.Unpacker
	f.Unpack(&u, &h.home, v.Skip, v.Sender)
	for u.Read() {
		switch to, understood := u.To(), u.Understood(); {
		case to == nil:
		case understood:
			h.sendTo(to, roomlog.Gap{}, []item.Entry{u.Entry()})
		default:
			h.sendTo(to, roomlog.Gap{Missed: 1}, nil)
		}
	}
	n := u.TakeNotUnderstood()
	if n.Count > 0 && u.NoneUnderstood() { // it is not known whom they were for
		h.tellAll()
	}
	h.notUnderstood(h.inboxChannel, n)
}

// sendTo gives direct messages, or a gap, to the members of a list that are on
// this hub.
func (h *Hub) sendTo(to wire.List, gap roomlog.Gap, entries []item.Entry) {
	numbers := item.MemberNumbers(h.id, to)
	members := make([]*Member, 0, len(numbers))
	h.mu.RLock()
	for _, n := range numbers {
		if m := h.members[n]; m != nil {
			members = append(members, m)
		}
	}
	h.mu.RUnlock()
	for _, m := range members {
		m.send(gap, entries)
	}
}

// tellAll tells every member that direct messages may be missing.
func (h *Hub) tellAll() {
	r := h.everyone
	h.attachEveryone()
	r.mu.Lock()
	w := r.append(roomlog.Gap{Unknown: true}, nil)
	r.mu.Unlock()
	w.run(h)
}

// echo sends a message for no member to the hub itself, and waits until it
// arrives.
func (h *Hub) echo(ctx context.Context) error {
	if err := h.begin(); err != nil {
		return err
	}
	defer h.ops.Leave(1)
	arrived := h.inbox.Echo()
	defer h.inbox.Forget(arrived)
	out := h.inboxes.To(h.id)
	defer out.Release()
	if err := out.Publish(ctx, &wire.Message{Data: []byte{}}); err != nil {
		return err
	}
	select {
	case <-arrived:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-h.closing:
		return ErrClosed
	}
}

// subscribeOwn subscribes to the channels that every hub listens to. If the
// backend refuses, it tries again as long as the hub exists: rights may be
// granted later.
func (h *Hub) subscribeOwn() {
	var said journal.OncePerMinute
	failed := false
	h.own.Keep(h.ctx, h.trySubscribeOwn, func(err error) bool {
		failed = true
		if said.Due() {
			h.log.Error("fanout: hub gets no direct messages and none to everyone, and nobody can join; it tries again (said once a minute)",
				"hub", h.id, "error", err)
		}
		return !errors.Is(err, ErrClosed) // then the adapter is closed
	})
	if failed && h.own.Succeeded() {
		h.log.Info("fanout: hub's own channels are subscribed now", "hub", h.id)
	}
}

// trySubscribeOwn subscribes to both channels, or returns the first error.
func (h *Hub) trySubscribeOwn() error {
	for _, channel := range []string{h.inboxChannel, h.everyone.channel} {
		if err := h.adapter.Subscribe(h.ctx, channel); err != nil {
			return fmt.Errorf("hub's own channel %s: %w", channel, err)
		}
	}
	return nil
}

// awaitOwn waits until the hub's own channels are subscribed. It ends earlier
// with ctx, with the hub, when the backend refuses, and, for a membership (nil:
// there is none), when its member ends or has left.
func (h *Hub) awaitOwn(ctx context.Context, ms *membership) error {
	return h.awaitTrial(ctx, h.own, ms)
}

// awaitTrial is awaitOwn for any subscription that is tried until it succeeds.
func (h *Hub) awaitTrial(ctx context.Context, t *trial.Trial, ms *membership) error {
	for !t.Succeeded() {
		changed, last := t.Last()
		if errors.Is(last, ErrRefused) || errors.Is(last, ErrClosed) {
			return last
		}
		var err error
		if ms != nil {
			var over bool
			if over, err = ms.awaitChange(ctx, changed); over {
				return nil // see room.await
			}
		} else {
			select {
			case <-changed:
			case <-ctx.Done():
				err = context.Cause(ctx)
			case <-h.closing:
				err = ErrClosed
			}
		}
		if err != nil && last != nil {
			err = fmt.Errorf("%w (last: %v)", err, last)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// awaitOthers waits for the channels of messages without a room, which a Join
// promises as well.
func (r *room) awaitOthers(ctx context.Context, ms *membership) error {
	if err := r.hub.awaitOwn(ctx, ms); err != nil {
		return err
	}
	if u := ms.member.user(); u != nil && r.name != "" {
		return r.hub.awaitTrial(ctx, u.joined, ms)
	}
	return nil
}

// Ready waits until the hub's own channels are subscribed, which are its inbox
// and the channel of everyone, and those of the users of all members that are
// connected now. From then on direct messages, messages to these users and
// messages to everyone arrive, or are reported missing, also at members that
// are in no room.
//
// It ends earlier with ctx, when the hub closes ([ErrClosed]), and when the
// backend refuses one of these channels ([ErrRefused]; the hub keeps trying).
func (h *Hub) Ready(ctx context.Context) error {
	if h.isClosing() {
		return failed("ready", ErrClosed)
	}
	err := h.awaitOwn(ctx, nil)
	for _, u := range h.joiningUsers() {
		if err == nil {
			err = h.awaitTrial(ctx, u.joined, nil)
		}
	}
	return failed("ready", h.explain(ctx, err))
}

// joiningUsers returns those of the members that are not in their users'
// channels.
func (h *Hub) joiningUsers() (all []*user) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, list := range h.users {
		for u := range list.All {
			if !u.joined.Succeeded() {
				all = append(all, u)
			}
		}
	}
	return all
}

// receiveNotice takes a notice: a hello, or one that this release does not
// know. Those it ignores.
func (h *Hub) receiveNotice(channel string, frame []byte) {
	hello, err := wire.DecodeHello(frame)
	switch {
	case errors.Is(err, wire.ErrNotice):
	case err != nil:
		h.malformed(channel, err)
	default:
		h.hellos.Receive(&hello)
	}
}

// sayHello says hello until the hub ends, once the hub's own channels are
// subscribed.
func (h *Hub) sayHello() {
	select {
	case <-h.own.Done():
		h.hellos.Run(h.ctx)
	case <-h.ctx.Done():
	}
}

// canWrite reports whether all hubs that are there can read a format level, so
// that a field of that level may be written. For levels above the first it is
// false while the hub cannot know the others: in its first two seconds, and
// until the backend can be reached. No field needs it yet: all are of the first
// level.
func (h *Hub) canWrite(level int) bool { return h.alone || h.hellos.Level() >= level }
