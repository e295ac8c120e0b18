package fanout

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/internal/announcer"
	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/hellos"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/linked"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/notices"
	"github.com/fanoutgo/fanout/internal/performer"
	"github.com/fanoutgo/fanout/internal/presence"
	"github.com/fanoutgo/fanout/internal/roomlog"
	"github.com/fanoutgo/fanout/internal/wire"
)

// A PresenceChange says who has come to a room and who has left it. Members of
// a room with [RoomOptions.Presence] receive them among its messages: see
// [Message.Presence].
//
// The first that a member receives has Reset set, and lists who is there. The
// others, applied to that list in order, keep it right. A member that has
// fallen out of the room's window receives a list again. On all hubs the lists
// say the same once nobody comes or goes and links are up, and then they say
// what [Selection.Members] says, in terms of persons.
type PresenceChange struct {
	// Reset means that Joined is the whole list: forget what was before.
	Reset bool

	// Joined are persons whose first connection has come, Updated those whose
	// Info has changed, and Left those whose last connection has gone. Those
	// that have left have no Info.
	Joined, Updated, Left []Person

	// Large means that there are more connections than
	// RoomOptions.PresenceList: Joined is a sample, and the changes in between
	// are not told. Reset is set, too.
	Large bool

	// Count is the number of connections in the room, on all hubs. A person may
	// have several, and that their number changes is no event by itself.
	Count int
}

// A Person is a user, with all connections of it, or a member that has no user.
type Person struct {
	User   string // MemberOptions.User
	Member string // the member's ID, if it has no user
	Info   []byte // of the connection that is there longest; do not modify it

	// Since is when the connection that is there longest connected, by the
	// clock of its hub. That another one takes its place, as after a reload
	// within RoomOptions.Grace, is no change by itself. So members that were
	// there before keep the earlier time, and members that join later get the
	// new one in their list.
	Since time.Time
}

// Presence returns the change of presence that a message is. It is not ok if
// the message is an ordinary one. A change has no Position, is in no history,
// and does not count as missed.
//
// All members share the Data of a change. It takes some microseconds to decode,
// 0.2 ms with 600 persons, so a server that forwards changes to many clients
// may do it once: &Data[0] is the same for all of them.
func (m Message) Presence() (c PresenceChange, ok bool) {
	if m.Sender != announcer.Sender {
		return c, false
	}
	d, err := presence.Decode(m.Data)
	if err != nil {
		return c, false
	}
	return PresenceChange{
		Reset: d.Reset, Large: d.Large, Count: d.Count,
		Joined: persons(d.Joined), Updated: persons(d.Updated), Left: persons(d.Left),
	}, true
}

func persons(list []presence.Person) []Person {
	if len(list) == 0 {
		return nil
	}
	all := make([]Person, len(list))
	for i, p := range list {
		all[i] = Person{User: p.User, Info: p.Info, Since: time.UnixMilli(int64(p.Since))}
		if p.User == "" {
			all[i].Member = item.MemberID(hubID(p.Hub), p.Member)
		}
	}
	return all
}

// There are many rooms: what few of them have is apart. It does not change.
type rare struct {
	invalid  error           // why no use can be made of what Options.Room has returned
	presence *announcer.Room // nil: the room has none
}

// invalid is why no use can be made of the room; nil: it can be used.
func (r *room) invalid() error {
	if r.rare == nil {
		return nil
	}
	return r.rare.invalid
}

// presence is who is in the room; nil: its members are not told.
func (r *room) presence() *announcer.Room {
	if r.rare == nil {
		return nil
	}
	return r.rare.presence
}

// list has the membership receive the list of who is there next, if there is
// one: otherwise the first one is a change, and in the log.
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
// append wakes the member. It does not if there is a list of who is here, with
// which the member begins.
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
// does not get changes that are in it.
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

// announced returns what a hub that follows a room wants to know of this one.
func (h *Hub) announced(q *control.Question) *control.Answer {
	life := h.newStream() // members that join after the look get a larger one
	snapshot := &control.Answer{Status: control.StatusLast, Mode: control.ModeList}
	for _, room := range q.Names { // one
		if r := h.lookup(h.names.Room(room)); r != nil && r.presence() != nil {
			snapshot = r.presence().Snapshot(q)
		}
	}
	if snapshot.Life == 0 { // nobody is here, whatever was before
		snapshot.Life = life
	}
	return snapshot
}

// infoChanged tells the rooms of a member that have presence.
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

// initPerformer prepares the hub to do what others ask for.
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
	defer func() {
		if p := recover(); p != nil {
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
	(*Member)(v).finish(reason, time.Now().Add(closeGrace), at)
}

// A roomView is a room as packages announcer and performer see it: it
// implements announcer.Host and performer.Room.
type roomView struct{ room *room }

func (v roomView) Mutex() *locks.Mutex[locks.Room] { return &v.room.mu }
func (v roomView) Name() string                    { return v.room.name }
func (v roomView) Channel() string                 { return v.room.channel }
func (v roomView) Outbox() notices.Outbox          { return v.room.outbox() }
func (v roomView) Release()                        { v.room.hub.release(v.room) }

func (v roomView) Use() {
	v.room.mu.AssertHeld()
	v.room.uses++
}

func (v roomView) Append(e item.Entry) (wake func()) {
	w := v.room.append(roomlog.Gap{}, []item.Entry{e})
	return func() { w.run(v.room.hub) }
}

func (v roomView) Count() int {
	v.room.mu.Lock()
	defer v.room.mu.Unlock()
	return int(v.room.count)
}

// Expel has joins that have been admitted, and are not in the room yet, ask
// again.
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
