// Package announcer drives package presence for the rooms of a hub whose
// members are told who is in them.
//
// A [Room] has a presence.Local, while members are here, which announces them,
// and a presence.Follower, while the room is subscribed, which knows who is in
// the room on all hubs:
//
//	Came, Went, Changed ─▶ events ─▶ Local ─▶ send ─▶ the room's channel
//	the room's channel ─▶ Receive ─┐
//	answers to questions ─▶ take ──┼─▶ Follower ─▶ step ─▶ the room's log
//	HubGone, HubCame ──────────────┘
//
// The lock of the room guards everything that changes. One goroutine of the
// hub, [Announcer.Run], does what is due. Each question to other hubs has a
// goroutine of its own.
package announcer

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/notices"
	"github.com/fanoutgo/fanout/internal/questions"
	"github.com/fanoutgo/fanout/internal/schedule"
)

// Sender is the sender of changes. It is not the ID of any hub: those are made
// of digits.
const Sender = "presence"

// Env is the hub.
type Env struct {
	Notices *notices.Sender
	// Go calls a function on a goroutine that the hub waits for when it closes;
	// a hub that has closed does not call it. Locks may be held.
	Go func(func())
	// Ask puts a question to the hubs that listen to some channels. It waits,
	// and is called without locks. Its error is an *questions.Incomplete if not
	// all have answered.
	Ask func(ctx context.Context, q *control.Question, take questions.Take, lanes questions.Lanes) error
	// Lane returns the channel of a room, held, for a question. It is called
	// without locks, and may call Options.Room.
	Lane func(room string) questions.Lane
	// NewLife returns a number that is greater than those before. Locks may be
	// held.
	NewLife func() uint64
	// IsGone reports whether a hub is known to have ended. Locks may be held.
	IsGone func(hub uint64) bool
	// Since returns when a hub began, by its own clock. Locks may be held.
	Since func(hub uint64) time.Time
	// IsNew reports whether the hub may not know all others. Locks may be held.
	IsNew func() bool
	// Uncounted reports whether the backend is known not to count receivers.
	// Locks may be held.
	Uncounted func() bool
	// Malformed is told of an announcement that cannot be read.
	Malformed func(channel string, err error)
}

// A Host is a room whose members are told who is in it.
type Host interface {
	// Mutex returns the lock of the room. It is held when Use and Append are
	// called, and not when the others are.
	Mutex() *locks.Mutex[locks.Room]
	// Name and Channel return the name of the room and that of its channel.
	Name() string
	Channel() string
	// Outgoing returns the room's channel, to be sent to.
	Outgoing() notices.Channel
	// Use keeps the room, and keeps it subscribed, until Release.
	Use()
	// Release ends a Use.
	Release()
	// Append puts an entry into the room's log. The caller calls wake after it has
	// released the lock.
	Append(e item.Entry) (wake func())
}

// A Member is a member of this hub.
type Member interface {
	// Number returns the member's number.
	Number() uint64
	// Entry describes the member. It is called without locks.
	Entry() control.Entry
}

// An Announcer makes rooms with presence do what is due. Init makes it. Its
// methods may be called concurrently, but Run only once.
type Announcer struct {
	env   Env
	due   schedule.Schedule[*Room]
	slots chan struct{} // one for each question that is under way

	mu        locks.Mutex[locks.Innermost] // guards following
	following map[*Room]struct{}           // rooms that are subscribed
}

// Init makes a, which is zero, the announcer of a hub.
func (a *Announcer) Init(env *Env) {
	a.env = *env
	a.due.Init()
	a.slots = make(chan struct{}, maxSnapshots)
	a.following = make(map[*Room]struct{})
}

// Run does what is due until the hub ends.
func (a *Announcer) Run() { a.due.Run(a.env.Notices.Context, (*Room).run) }

func (a *Announcer) follow(r *Room) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.following[r] = struct{}{}
}

func (a *Announcer) unfollow(r *Room) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.following, r)
}

// each calls f for each room that is subscribed, without locks.
func (a *Announcer) each(f func(*Room)) {
	a.mu.Lock()
	all := slices.Collect(maps.Keys(a.following))
	a.mu.Unlock()
	for _, r := range all {
		f(r)
	}
}

// HubGone removes the members of a hub that has ended from the lists: at once,
// or after the grace period if the hub ended in order.
func (a *Announcer) HubGone(hub uint64, inOrder bool) {
	now := time.Now()
	a.each(func(r *Room) { r.hubGone(hub, inOrder, now) })
}

// HubCame asks a hub for what it has announced before this one knew of it, or
// while this one took it for gone. A hub that is met was not known before.
func (a *Announcer) HubCame(hub uint64, met bool) {
	a.each(func(r *Room) { r.hubCame(hub, met) })
}

// Back is called when others have taken this hub for gone: it announces its
// members again.
func (a *Announcer) Back() { a.each((*Room).back) }
