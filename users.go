package fanout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/internal/backoff"
	"github.com/fanoutgo/fanout/internal/linked"
	"github.com/fanoutgo/fanout/internal/trial"
	"github.com/fanoutgo/fanout/internal/wire"
)

// A user is what a member has of the user that it belongs to. Messages to the
// user travel in a channel of the user's own, which is a room without a name.
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
func (h *Hub) User(ids ...string) Selection {
	return Selection{hub: h, kind: toUsers, names: distinct(ids)}
}

// checkUser says what is wrong with the name of a user.
func checkUser(name string) error {
	if err := wire.CheckRoom(name); err != nil { // the same rules
		return fmt.Errorf("%w %s: %w", ErrInvalidUser, quoteName(name), err)
	}
	return nil
}

// checkUsers says what is wrong with the users that a selection names.
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

// acquireUsers returns a part for each of the users.
func (s Selection) acquireUsers(m *wire.Message) (targets []target) {
	h := s.hub
	for _, user := range s.names {
		targets = append(targets, target{h.acquire("", h.names.User(user)).outbox(), *m})
	}
	return targets
}

// publishToUsersHere gives a message to the users' members on this hub.
func (s Selection) publishToUsersHere(m *wire.Message) {
	h := s.hub
	e := h.entryOf(m)
	for _, user := range s.names {
		if r := h.lookup(h.names.User(user)); r != nil {
			r.deliver(e)
		}
	}
}

// User returns what was given as [MemberOptions.User].
func (m *Member) User() string {
	if u := m.user(); u != nil {
		return u.name
	}
	return ""
}

func (m *Member) user() *user {
	if e := m.more.Load(); e != nil {
		return e.user
	}
	return nil
}

// register makes a member one of the hub's.
func (h *Hub) register(m *Member) {
	h.mu.AssertHeld()
	h.members[m.num] = m
	if u := m.user(); u != nil {
		all := h.users[u.name]
		all.Add(u)
		h.users[u.name] = all
	}
}

// unregister undoes register, if that is not done.
func (h *Hub) unregister(m *Member) {
	h.mu.AssertHeld()
	if h.members[m.num] != m {
		return
	}
	delete(h.members, m.num)
	u := m.user()
	if u == nil {
		return
	}
	all := h.users[u.name]
	if all.Remove(u); all.Empty() {
		delete(h.users, u.name)
		return
	}
	h.users[u.name] = all
}

// numbersOf returns the numbers of the members of a user on this hub, from
// Connect on.
func (h *Hub) numbersOf(user string) (all []uint64) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	list := h.users[user]
	for u := range list.All {
		all = append(all, u.member.num)
	}
	return all
}

// joinUser brings a member into the channel of its user, now if that needs no
// waiting, and otherwise in the background.
func (h *Hub) joinUser(m *Member) {
	u := m.user()
	r := h.acquire("", h.names.User(u.name))
	if h.own.Succeeded() && r.joinNow(m) {
		h.release(r)
		u.joined.Succeed()
		return
	}
	join := func() {
		defer u.joined.Succeed()
		defer h.release(r)
		h.keepJoining(r, m)
	}
	if h.alone { // the adapter does not wait
		join()
		return
	}
	h.pool.Aside(join)
}

// joinNow brings a member into the room if it stands. It reports whether
// nothing is left to do.
func (r *room) joinNow(m *Member) (done bool) {
	ms, err := m.reserve(r, nil)
	if err != nil {
		return true // it has ended
	}
	r.mu.Lock()
	if err = errNotNow; r.follows() && !ms.left.Load() && !ms.joined {
		r.open(ms)
		ms.cursor.Park()
		err = nil
	}
	r.mu.Unlock()
	m.endJoin(ms, nil, err)
	return err == nil
}

var errNotNow = errors.New("the channel is not subscribed")

// keepJoining brings a member into the channel of its user, however long that
// takes. It returns earlier when the member or the hub ends.
func (h *Hub) keepJoining(r *room, m *Member) {
	for pause := (backoff.Backoff{}); ; {
		err := r.admit(h.open, m, nil)
		if err == nil || m.refusal() != nil || h.isClosing() {
			return
		}
		m.user().joined.Fail(err)
		if h.unheard.Due() {
			h.log.Error("fanout: a member gets no messages to its user, the hub tries again (said once a minute)",
				"channel", r.channel, "error", err)
		}
		wait := time.NewTimer(pause.Next())
		select {
		case <-wait.C:
		case <-m.Done():
		case <-h.closing:
		}
		wait.Stop()
	}
}

// awaitOthers waits for the channels that bring a member messages without a
// room, which a Join promises as well.
func (r *room) awaitOthers(ctx context.Context, ms *membership) error {
	if err := r.hub.awaitOwn(ctx, ms); err != nil {
		return err
	}
	if u := ms.member.user(); u != nil && r.name != "" {
		return r.hub.awaitTrial(ctx, u.joined, ms)
	}
	return nil
}

// Ready waits until the hub's own channels are subscribed, and those of the
// users of all members that are connected now. From then on direct messages,
// messages to these users and messages to everyone arrive, or are reported
// missing, also at members that are in no room.
//
// It ends earlier with ctx, when the hub closes ([ErrClosed]), and when the
// backend refuses one of these channels ([ErrRefused]; the hub goes on trying).
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
