package fanout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/internal/callback"
	"github.com/fanoutgo/fanout/internal/linked"
	"github.com/fanoutgo/fanout/internal/trial"
	"github.com/fanoutgo/fanout/internal/wire"
)

// MemberOptions describe a member.
type MemberOptions struct {
	// User is whose connection the member is: valid UTF-8 of up to 255 bytes,
	// or empty for none. A user may have several connections, on several hubs;
	// [Hub.User] selects all of them. Users and rooms have nothing to do with
	// each other, whatever their names.
	User string

	// Info is what the application wants to know of the member, in its own
	// format, at most MaxInfo bytes. The hub keeps a copy. See
	// [Member.SetInfo].
	Info []byte

	// OnReady, if set, is called when there is something to receive, or the
	// member has ended, and there was nothing before. It is not called again
	// until [Member.TryReceiveBatch] has returned 0 and no error. So a few
	// workers can serve many members: OnReady hands the member to one of them.
	// A member that is idle needs no goroutine then.
	//
	// One goroutine of the hub makes all these calls, so OnReady must not block.
	// It must not call Hub.Close or Hub.Drain, which would wait for it until their
	// ctx ends. It may be called before Connect has returned.
	OnReady func(*Member)
}

// Connect returns a new Member of the hub. It is in no room. Nil options are
// the defaults. Close the Member when its connection ends.
//
// Connect does not wait for the backend. Direct messages, messages to the
// member's user and messages to everyone reach it once the hub has subscribed
// to the channels in which these travel: at the latest when [Hub.Ready], or a
// Join of the member, has returned nil.
//
// Errors are [ErrClosed], of a hub that is closed or drains, [ErrInvalidUser],
// and [ErrTooLarge] for an Info that is longer than [MaxInfo].
func (h *Hub) Connect(o *MemberOptions) (*Member, error) {
	m := &Member{hub: h, num: h.lastMember.Add(1), connected: h.age()}
	if o != nil {
		if err := m.configure(o); err != nil {
			return nil, failed("connect", err)
		}
	}
	if err := h.add(m); err != nil {
		return nil, failed("connect", err)
	}
	if m.user() != nil {
		h.joinUser(m)
	}
	return m, nil
}

// ageUnit is the precision of the time at which a member connected. With it, 32
// bits last for 13 years.
const ageUnit = 100 * time.Millisecond

// age returns how long the hub has existed.
func (h *Hub) age() uint32 { return uint32(time.Since(h.since) / ageUnit) }

// since returns when the member connected, in ms since 1970.
func (m *Member) since() uint64 {
	return uint64(m.hub.since.Add(time.Duration(m.connected) * ageUnit).UnixMilli())
}

// add adds a new member to the hub.
func (h *Hub) add(m *Member) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.isClosing() || h.drained != nil {
		return ErrClosed
	}
	h.register(m)
	if h.everyoneHears {
		h.everyone.mu.Lock()
		m.attach()
		h.everyone.mu.Unlock()
	}
	return nil
}

// configure applies the options of a member that is not yet visible to others.
func (m *Member) configure(o *MemberOptions) error {
	if o.User != "" {
		if err := checkUser(o.User); err != nil {
			return err
		}
		m.extras().user = &user{name: o.User, joined: trial.New(), member: m}
	}
	if len(o.Info) > 0 {
		if err := m.setInfo(o.Info); err != nil {
			return err
		}
	}
	if o.OnReady != nil {
		m.calls = true
		m.extras().onReady = o.OnReady
	}
	return nil
}

// A user is what a member stores about its user. Messages to the user travel in
// the user's own channel, which is a room without a name.
type user struct {
	name   string
	joined *trial.Trial // the member is in that room, or has ended
	member *Member
	links  linked.Links[user] // of the connections to this hub. Guarded by Hub.mu
}

// Links implements linked.Element.
func (u *user) Links() *linked.Links[user] { return &u.links }

// IsMark implements linked.Element.
func (*user) IsMark() bool { return false }

// connections are the members of one user on this hub. Guarded by Hub.mu.
type connections = linked.List[user, *user]

// User selects all connections of users, on all hubs: the members that were
// connected with that [MemberOptions.User]. A message to a user costs what one
// to a room of its connections does, and members receive it like a direct
// message: [Message.Room] is empty. See [Hub.Connect] for when a member begins
// to get them.
func (h *Hub) User(users ...string) Selection {
	return Selection{hub: h, kind: toUsers, names: distinct(users)}
}

// checkUser returns what is wrong with the name of a user, or nil.
func checkUser(name string) error {
	if err := wire.CheckRoom(name); err != nil { // the same rules
		return fmt.Errorf("%w %s: %w", ErrInvalidUser, quoteName(name), err)
	}
	return nil
}

// checkUsers returns what is wrong with the users that a selection names, or
// nil.
func checkUsers(names []string) error {
	if len(names) == 0 {
		return fmt.Errorf("%w: User names no user", ErrEmptySelection)
	}
	for _, name := range names {
		if err := checkUser(name); err != nil {
			return err
		}
	}
	return nil
}

// attach subscribes a member to the messages to everyone.
func (m *Member) attach() {
	m.hub.mu.AssertHeld()
	m.hub.everyone.mu.AssertHeld()
	ms := new(membership)
	ms.init(m, m.hub.everyone)
	m.hub.everyone.open(ms)
	ms.cursor.Park()
	m.extras().everyone = ms
}

// attachEveryone subscribes all members to the messages to everyone. It is
// called before the first such message: most hubs send none, and a cursor for
// each member would be a third of the cost of an idle member.
func (h *Hub) attachEveryone() {
	h.mu.RLock()
	hears := h.everyoneHears
	h.mu.RUnlock()
	if hears {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.everyoneHears {
		return
	}
	h.everyoneHears = true
	h.everyone.mu.Lock()
	defer h.everyone.mu.Unlock()
	for _, m := range h.members {
		m.attach()
	}
}

// MaxInfo is the greatest length of a member's info, in bytes.
const MaxInfo = 4096

// Info returns the info that was last given to SetInfo, or else
// MemberOptions.Info. The caller must not modify it.
func (m *Member) Info() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.more.Load(); e != nil {
		return e.info
	}
	return nil
}

// SetInfo replaces the member's info, of which the hub keeps a copy. Lists that
// are asked for from now on have it, and rooms with [RoomOptions.Presence]
// announce it. An info that is longer than MaxInfo is [ErrTooLarge]. A member
// that has ended keeps its info; the error is [ErrClosed] or [ErrSlow].
func (m *Member) SetInfo(info []byte) error {
	return failed("set info", m.setInfo(info))
}

func (m *Member) setInfo(info []byte) error {
	if n := len(info); n > MaxInfo {
		return fmt.Errorf("%w: the info has %d bytes, at most %d are allowed", ErrTooLarge, n, MaxInfo)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.refusal(); err != nil {
		return err
	}
	m.extras().info = slices.Clone(info)
	m.infoChanged()
	return nil
}

// An admission is the answer of Options.Admit to one Join.
type admission struct {
	asked    bool
	expelled uint64 // the room's count of Hub.expelled when Admit was asked
}

// stands reports whether the Join is admitted, and no command has taken members
// out of rooms since Admit was asked. If the room's lock is held, that stays
// true until it is released, because a command counts itself before it looks
// for members.
func (a *admission) stands(r *room) bool {
	r.mu.AssertHeld()
	return r.hub.opts.Admit == nil || r.name == "" || a.asked && a.expelled == r.hub.expelled.of(r.channel).Load()
}

// ask asks Options.Admit on behalf of a membership. The room's lock is held;
// ask releases it. If the call ended because nothing was left to decide, the
// error says why; it is nil if another Join has succeeded.
func (a *admission) ask(ctx context.Context, ms *membership) error {
	if ctx.Err() != nil { // Admit may have been asked before
		ms.room.mu.Unlock()
		return context.Cause(ctx)
	}
	h := ms.room.hub
	call, end := ms.beginCall(ctx)
	ms.room.mu.Unlock()
	defer end()
	a.asked, a.expelled = true, h.expelled.of(ms.room.channel).Load()
	err := h.opts.Admit(call, ms.room.name, ms.member)
	switch {
	case call.Err() != nil && ctx.Err() == nil:
		if why := context.Cause(call); !errors.Is(why, ErrJoined) {
			return why
		}
		return nil
	case err != nil:
		return notAdmitted{err}
	}
	return nil
}

// A notAdmitted is an error of Options.Admit.
type notAdmitted struct{ error }

func (e notAdmitted) Unwrap() error { return e.error }

// reserve returns the membership of a room for a Join that begins: the existing
// one, or a new one. A Resume (rp is not nil) needs a new one.
//
// It takes walk, so that a Leave of an earlier membership is complete: OnLeave
// is called before OnJoin.
func (m *Member) reserve(r *room, rp *memberReplay) (*membership, error) {
	m.walk.Lock()
	defer m.walk.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.refusal(); err != nil {
		return nil, err
	}
	ms := m.rooms.Get(r.channel)
	if ms == nil {
		ms = new(membership)
		ms.init(m, r)
		if rp != nil {
			ms.place.replay = rp
		}
		m.rooms.Put(ms)
	} else if rp != nil {
		return nil, ErrJoined
	}
	ms.joiners++
	return ms, nil
}

// endJoin ends a Join, or a Resume if rp is not nil. If no Join of the
// membership has succeeded, the membership ends with the last of them, and has
// received nothing. If a Resume has failed, a Join that is still under way
// continues without it.
func (m *Member) endJoin(ms *membership, rp *memberReplay, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ms.joiners--
	if err == nil {
		return
	}
	r := ms.room
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case ms.joined:
	case ms.joiners == 0 && m.rooms.Get(r.channel) == ms:
		m.rooms.Delete(r.channel)
		ms.left.end()
	case rp != nil && ms.place.replay == rp:
		ms.place.replay = nil
		ms.tell()
	}
}

// leave takes the member out of the room with a channel. It takes walk, so that
// no message of the room is received once the membership cannot be found.
func (m *Member) leave(channel string) {
	m.walk.Lock()
	defer m.walk.Unlock()
	m.mu.Lock()
	ms := m.rooms.Get(channel)
	if ms != nil {
		m.rooms.Delete(channel)
		m.depart(ms)
		ms.left.end()
	}
	m.mu.Unlock()
	if ms != nil {
		m.remove(ms)
		m.hub.switchboard.MemberLeft(m.num, (*memberView)(m).IsIn)
	}
}

// remove ends a membership that has been taken out of the member's rooms. No
// Receive is copying messages at the moment, and the next one sees that ms has
// left.
func (m *Member) remove(ms *membership) {
	m.walk.AssertHeld()
	ms.left.end()
	if m.current == ms {
		m.current = nil
	}
	ms.room.remove(ms)
	m.forgetDepartures()
	m.passedOver(ms)
}

// An event is a member that has joined or left a room.
type event struct {
	call   func(room string, m *Member)
	room   string
	member *Member
}

// events calls Options.OnJoin and OnLeave.
type events = callback.Calls[event]

func callEvent(e event) { e.call(e.room, e.member) }

// hasJoined arranges for OnJoin to be called and the member to be announced.
func (r *room) hasJoined(ms *membership) {
	r.mu.AssertHeld()
	r.happened(r.hub.opts.OnJoin, ms)
	if p := r.presence(); p != nil {
		p.Came((*memberView)(ms.member))
	}
}

// hasLeft is hasJoined for a member that has left.
func (r *room) hasLeft(ms *membership) {
	r.mu.AssertHeld()
	r.happened(r.hub.opts.OnLeave, ms)
	if p := r.presence(); p != nil {
		p.Went((*memberView)(ms.member))
	}
}

func (r *room) happened(call func(string, *Member), ms *membership) {
	if call != nil && r.name != "" { // the channels of users are no rooms
		r.hub.events.Add(event{call, r.name, ms.member})
	}
}
