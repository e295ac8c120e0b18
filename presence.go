package fanout

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/internal/announcer"
	"github.com/fanoutgo/fanout/internal/backoff"
	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/hellos"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/linked"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/notices"
	"github.com/fanoutgo/fanout/internal/performer"
	"github.com/fanoutgo/fanout/internal/roomlog"
	"github.com/fanoutgo/fanout/internal/wire"
)

// acquireUsers returns a part for each of the users.
func (s Selection) acquireUsers(m *wire.Message) (targets []target) {
	h := s.hub
	for _, user := range s.names {
		targets = append(targets, target{h.acquire("", h.names.User(user)).outgoing(), *m})
	}
	return targets
}

// publishToUsersHere gives a message to the users' members on this hub.
func (s Selection) publishToUsersHere(m *wire.Message) {
	h := s.hub
	e := h.home.Own(h.num, m)
	for _, user := range s.names {
		if r := h.lookup(h.names.User(user)); r != nil {
			r.deliver(e)
		}
	}
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

// unregister undoes register, unless that has been undone.
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

// joinUser adds a member to the channel of its user: at once if that needs no
// waiting, otherwise in the background.
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

// joinNow adds a member to the room if the room is subscribed. It reports
// whether nothing is left to do.
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

// keepJoining adds a member to the channel of its user, however long that
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

// list makes the membership receive the list of who is there next, if there is
// one. Otherwise the first list is a change in the log.
func (ms *membership) list() {
	ms.room.mu.AssertHeld()
	if p := ms.room.presence(); p != nil {
		if ms.place == nil {
			ms.place = new(place)
		}
		ms.place.lists = p.Number() > 0
	}
}

// parkNew parks the cursor of a new member, which has read everything: the next
// append wakes the member. It does not park it if there is a list of who is
// here, because the member begins with that.
func (r *room) parkNew(ms *membership) (listed bool) {
	r.mu.AssertHeld()
	if ms.place != nil && ms.place.lists {
		return true
	}
	ms.cursor.Park()
	return false
}

// listAgain is list for a membership whose cursor has passed over changes.
func (ms *membership) listAgain() {
	ms.member.walk.AssertHeld()
	ms.place.lists = ms.room.presence() != nil
}

// takeList puts the list of who is there into buf, if there is one. The member
// does not get changes that the list includes.
func (m *Member) takeList(buf []Message, ms *membership) int {
	m.walk.AssertHeld()
	r := ms.room
	r.mu.Lock()
	list, number := r.presence().List()
	r.mu.Unlock()
	ms.place.lists = false
	if number == 0 {
		return 0
	}
	ms.place.shown = number
	buf[0] = Message{Room: r.name, Data: list, Sender: announcer.Sender}
	return 1
}

// announced answers a hub that follows a room and asks who is announced on this
// one.
func (h *Hub) announced(q *control.Question) *control.Answer {
	life := h.newStream() // members that join after the look get a larger one
	snapshot := &control.Answer{Status: control.StatusLast, Mode: control.ModeList}
	for _, room := range q.Names { // one
		if r := h.lookup(h.names.Room(room)); r != nil && r.presence() != nil {
			snapshot = r.presence().Snapshot(q)
		}
	}
	if snapshot.Life == 0 { // no member is here, whatever was announced before
		snapshot.Life = life
	}
	return snapshot
}

// infoChanged tells the member's rooms with presence that its info has changed.
func (m *Member) infoChanged() {
	m.mu.AssertHeld()
	for ms := range m.rooms.All {
		p := ms.room.presence()
		if p == nil {
			continue
		}
		ms.room.mu.Lock()
		if ms.joined && !ms.retired {
			p.Changed((*memberView)(m))
		}
		ms.room.mu.Unlock()
	}
}

// initPerformer prepares the hub to carry out the questions of other hubs.
func (h *Hub) initPerformer() {
	h.performer.Init(&performer.Env{
		ID: h.id, Names: h.names, Poll: h.switchboard.Poll,
		Numbers: h.memberNumbers, NumbersOf: h.numbersOf,
		Room: func(channel string) performer.Room {
			if r := h.lookup(channel); r != nil {
				return roomView{r}
			}
			return nil
		},
		Member: func(number uint64) performer.Member {
			h.mu.RLock()
			defer h.mu.RUnlock()
			if m := h.members[number]; m != nil {
				return (*memberView)(m)
			}
			return nil
		},
		Describe: func() control.Entry {
			h.mu.RLock()
			members, rooms := len(h.members), len(h.rooms)-1 // everyone's is no room
			h.mu.RUnlock()
			return control.Entry{
				Number: uint64(rooms), Count: uint64(members), Name: []byte(hellos.Release()),
				Since: uint64(h.since.UnixMilli()),
			}
		},
	})
}

// memberNumbers returns the numbers of all members.
func (h *Hub) memberNumbers() []uint64 {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return slices.Collect(maps.Keys(h.members))
}

// A memberView is a member as packages announcer and performer see it: it
// implements their Member.
type memberView Member

func (v *memberView) Number() uint64 { return v.num }

func (v *memberView) Entry() control.Entry {
	m := (*Member)(v)
	return control.Entry{Number: m.num, Since: m.since(), Count: 1, Name: []byte(m.User()), Data: m.Info()}
}

func (v *memberView) Ended() bool { return (*Member)(v).endError() != nil }

func (v *memberView) IsIn(channel string) bool {
	v.mu.Lock()
	ms := v.rooms.Get(channel)
	v.mu.Unlock()
	if ms == nil {
		return false
	}
	ms.room.mu.Lock()
	defer ms.room.mu.Unlock()
	return ms.joined
}

func (v *memberView) Send(from uint64, data []byte) bool {
	m := (*Member)(v)
	m.send(roomlog.Gap{}, []item.Entry{{Data: data, Sender: hubID(from)}})
	return m.refusal() == nil
}

// Join returns a panic of Options.Room or Options.Admit as an error: the hub
// that asks gets it.
func (v *memberView) Join(ctx context.Context, room string) (err error) {
	m := (*Member)(v)
	if err := wire.CheckRoom(room); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidRoom, err)
	}
	m.hub.commandedJoins.Add(1)
	defer m.hub.commandedJoins.Add(-1)
	defer func() {
		if p := recover(); p != nil && m.refusal() == nil {
			err = fmt.Errorf("join room %s: Options.Room or Options.Admit panicked: %v", quoteName(room), p)
		}
	}()
	r := m.hub.acquire(room, m.hub.names.Room(room))
	defer m.hub.release(r)
	err = r.admit(ctx, m, nil)
	if _, refused := errors.AsType[notAdmitted](err); err == nil || refused || errors.Is(err, ErrLeft) || m.refusal() != nil {
		return nil
	}
	return fmt.Errorf("join room %s: %w", quoteName(room), err)
}

func (v *memberView) Leave(room string) { (*Member)(v).leave(v.hub.names.Room(room)) }

func (v *memberView) Finish(reason string, place any) {
	at, _ := place.(roomPlace)
	(*Member)(v).finish(&ClosedError{Reason: reason}, time.Now().Add(closeGrace), at)
}

// A roomView is a room as packages announcer and performer see it: it
// implements announcer.Host and performer.Room.
type roomView struct{ room *room }

func (v roomView) Mutex() *locks.Mutex[locks.Room] { return &v.room.mu }
func (v roomView) Name() string                    { return v.room.name }
func (v roomView) Channel() string                 { return v.room.channel }
func (v roomView) Outgoing() notices.Channel       { return v.room.outgoing() }
func (v roomView) Release()                        { v.room.hub.release(v.room) }

func (v roomView) Use() {
	v.room.mu.AssertHeld()
	v.room.life.Use()
}

func (v roomView) Append(e item.Entry) (wake func()) {
	w := v.room.append(roomlog.Gap{}, []item.Entry{e})
	return func() { w.run(v.room.hub) }
}

func (v roomView) Count() int {
	v.room.mu.Lock()
	defer v.room.mu.Unlock()
	return int(v.room.life.Members())
}

// Expel makes Joins ask again that were admitted and whose members are not in
// the room yet.
func (v roomView) Expel() { v.room.hub.expelled.of(v.room.channel).Add(1) }

// walkAtOnce is how many members of a room are looked at while its lock is
// held.
const walkAtOnce = 256

func (v roomView) Walk(ctx context.Context, f func(performer.Member) error) error {
	r := v.room
	w := r.members.Walk(new(membership))
	defer func() {
		r.mu.Lock()
		w.End()
		r.mu.Unlock()
	}()
	for buf := make([]*membership, 0, walkAtOnce); ; {
		r.mu.Lock()
		buf = w.Next(buf[:0])
		r.mu.Unlock()
		for _, ms := range buf {
			if err := f((*memberView)(ms.member)); err != nil {
				return err
			}
		}
		if len(buf) < cap(buf) {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// Links implements linked.Element.
func (ms *membership) Links() *linked.Links[membership] { return &ms.links }

// IsMark implements linked.Element: a mark keeps the place of a Walk.
func (ms *membership) IsMark() bool { return ms.member == nil }
