package fanout

import (
	"context"

	"github.com/fanoutgo/fanout/internal/callback"
)

// An admission is the answer of Options.Admit to one Join.
type admission struct {
	asked    bool
	expelled uint64 // Hub.expelled when it was asked
}

// stands reports whether the join is admitted, and no command has taken members
// out of rooms since that was asked. With the room's lock held it stands until
// that is released: a command counts itself before it looks for members.
func (a *admission) stands(rs *roomState) bool {
	rs.mu.AssertHeld()
	return rs.hub.opts.Admit == nil || rs.name == "" || a.asked && a.expelled == rs.hub.expelled.Load()
}

// ask asks Options.Admit. No lock is held.
func (a *admission) ask(ctx context.Context, ms *membership) error {
	h := ms.room.hub
	a.asked, a.expelled = true, h.expelled.Load()
	return h.opts.Admit(ctx, ms.room.name, ms.member)
}

// expelling is called before a command looks for the members of rooms that it
// takes out of rooms. It cannot find a member whose Join has been admitted and
// is not in the room yet: that Join asks again.
func (h *Hub) expelling() { h.expelled.Add(1) }

// An event is a member that has joined or left a room.
type event struct {
	call   func(room string, m *Member)
	room   string
	member *Member
}

// events calls Options.OnJoin and OnLeave.
type events = callback.Calls[event]

func callEvent(e event) { e.call(e.room, e.member) }

// hasJoined has OnJoin called.
func (rs *roomState) hasJoined(ms *membership) {
	rs.mu.AssertHeld()
	rs.happened(rs.hub.opts.OnJoin, ms)
}

// hasLeft has OnLeave called.
func (rs *roomState) hasLeft(ms *membership) {
	rs.mu.AssertHeld()
	rs.happened(rs.hub.opts.OnLeave, ms)
}

func (rs *roomState) happened(call func(string, *Member), ms *membership) {
	if call != nil && rs.name != "" { // the channels of users are no rooms
		rs.hub.events.Add(event{call, rs.name, ms.member})
	}
}

// Members returns the members of the room on this hub, in no order, without
// asking other hubs. It returns nothing for a room that cannot exist.
func (r *Room) Members() []*Member {
	rs := r.hub.lookup(r.channel)
	if r.err != nil || rs == nil {
		return nil
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	all := make([]*Member, 0, rs.count)
	for ms := rs.members; ms != nil; ms = ms.next {
		all = append(all, ms.member)
	}
	return all
}
