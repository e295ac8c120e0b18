package fanout

import (
	"context"
	"errors"
	"time"

	"github.com/fanoutgo/fanout/internal/backoff"
	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/presence"
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

// presenceSender is the sender of changes. Hubs' IDs are others, and those of
// frames are made of numbers.
const presenceSender = "presence"

// Presence returns the change of presence that a message is. It is not ok if
// the message is an ordinary one. A change has no Position, is in no history,
// and does not count as missed.
//
// All members share the Data of a change. It takes some microseconds to decode,
// 0.2 ms with 600 persons, so a server that forwards changes to many clients
// may do it once: &Data[0] is the same for all of them.
func (m Message) Presence() (c PresenceChange, ok bool) {
	if m.Sender != presenceSender {
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
	invalid  error         // why no use can be made of what Options.Room has returned
	presence *roomPresence // nil: the room has none
}

// invalid is why no use can be made of the room; nil: it can be used.
func (rs *roomState) invalid() error {
	if rs.rare == nil {
		return nil
	}
	return rs.rare.invalid
}

// presence is who is in the room; nil: its members are not told.
func (rs *roomState) presence() *roomPresence {
	if rs.rare == nil {
		return nil
	}
	return rs.rare.presence
}

// list has the membership receive the list of who is there next, if there is
// one: otherwise the first one is a change, and in the log.
func (ms *membership) list() {
	ms.room.mu.AssertHeld()
	if p := ms.room.presence(); p != nil {
		if ms.place == nil {
			ms.place = new(place)
		}
		ms.place.lists = p.number() > 0
	}
}

// parkNew parks the cursor of a new member, which has read everything: the next
// append wakes the member. It does not if there is a list of who is here, with
// which the member begins.
func (rs *roomState) parkNew(ms *membership) (listed bool) {
	rs.mu.AssertHeld()
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
	rs := ms.room
	rs.mu.Lock()
	list, number := rs.presence().encoded()
	rs.mu.Unlock()
	ms.place.lists = false
	if number == 0 {
		return 0
	}
	ms.place.shown = number
	buf[0] = Message{Room: rs.name, Data: list, Sender: presenceSender}
	return 1
}

// number returns the number of the last change; 0 before the first list.
func (p *roomPresence) number() uint64 {
	p.room.mu.AssertHeld()
	if p.follower == nil {
		return 0
	}
	return p.follower.Number()
}

// encoded returns the list of who is there, and the number of the last change
// in it. It is made once for all members that need it.
func (p *roomPresence) encoded() (list []byte, number uint64) {
	number = p.number()
	if number > 0 && p.listed != number {
		p.list, p.listed = p.follower.List().Append(nil), number
	}
	return p.list, number
}

// entryOfChange returns a change as an entry of the room's log.
func entryOfChange(c *presence.Change) item.Entry {
	return item.Entry{Data: c.Append(nil), Sender: presenceSender, Filter: item.Numbered(c.Number)}
}

const (
	// settleTime is how long the first list of a room waits for hubs that do
	// not answer.
	settleTime = 5 * time.Second
	// snapshotTimeout bounds how long one hub is asked for its list. It is asked
	// again after that.
	snapshotTimeout = 10 * time.Second
	// maxSnapshots bounds the questions for lists that are under way at a time.
	maxSnapshots = 64
	// askOneByOne is up to how many hubs of a room are asked by themselves.
	// More are asked by one question in the room's channel.
	askOneByOne = 4
)

// settle asks all hubs who is there, until all have answered, after the last
// interruption.
func (p *roomPresence) settle(ctx context.Context, f *presence.Follower) {
	began, doubts := time.Now(), uint64(0)
	for pause := (backoff.Backoff{}); ; {
		p.room.mu.Lock()
		asks := p.asks
		if doubts != f.Doubts() {
			began, doubts = time.Now(), f.Doubts()
		}
		p.room.mu.Unlock()
		asking, cancel := context.WithTimeout(ctx, settleTime)
		err := p.question(asking, f, presence.Ask{Doubts: doubts})
		cancel()
		if complete := p.settled(f, doubts, asks, err == nil, time.Since(began) >= settleTime); complete || !pause.Wait(ctx) {
			return
		}
	}
}

// settled notes that all hubs have been asked, and whether all have answered.
// It reports false if they are to be asked again. If it is late, the first list
// waits no longer.
func (p *roomPresence) settled(f *presence.Follower, doubts uint64, asks int, answered, late bool) (complete bool) {
	rs := p.room
	rs.mu.Lock()
	var w wakeups
	complete = answered && f.Doubts() == doubts && p.asks == asks
	if p.follower == f {
		p.asking = !complete
		if complete || late {
			p.settling = false
			w = p.step(f.Settle())
		}
	}
	rs.mu.Unlock()
	w.run(rs.hub)
	return complete
}

// ask asks a hub for its list, beside. An earlier question to it ends.
func (p *roomPresence) ask(a presence.Ask) {
	p.room.mu.AssertHeld()
	if cancel := p.asked[a.Hub]; cancel != nil {
		cancel()
	}
	ctx, cancel := context.WithTimeout(p.ctx, snapshotTimeout)
	p.asked[a.Hub] = cancel
	f := p.follower
	p.room.hub.wg.Go(func() {
		defer cancel()
		_ = p.question(ctx, f, a) // the follower asks again
	})
}

// question asks a hub for its list, or all hubs by the room's channel (hub 0),
// and gives the lists to the Follower. Hubs that know nothing of presence have
// no members in the room that anybody could see.
func (p *roomPresence) question(ctx context.Context, f *presence.Follower, a presence.Ask) error {
	rs, h := p.room, p.room.hub
	select {
	case h.announcer.slots <- struct{}{}:
		defer func() { <-h.announcer.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	lists, own := make(map[uint64][]control.Entry), false
	q := &control.Question{Op: control.OpPresence, Names: []string{rs.name}, Life: a.Life, Seq: a.Seq, Digest: a.Digest}
	err := h.ask(ctx, q, func(hub uint64, page *control.Answer) bool {
		list := append(lists[hub], page.Entries...)
		if lists[hub] = list; !page.Status.Final() {
			return len(list) <= presence.MaxMembers
		}
		delete(lists, hub)
		own = own || hub == h.num
		snapshot := *page
		snapshot.Entries = list
		p.take(f, hub, &snapshot, a.Doubts)
		return true
	}, func(q *control.Question) []lane {
		q.Scope = control.ScopeRooms
		if a.Hub != 0 {
			return []lane{{way: h.wayTo(hubID(a.Hub))}}
		}
		return []lane{{way: h.acquire(rs.name, rs.channel).way()}}
	})
	if partial := (*PartialError)(nil); errors.As(err, &partial) && partial.Err == nil {
		err = nil // all have answered
	}
	if err == nil && a.Hub == 0 && !own {
		err = errQuestionLost
	}
	return err
}

// errQuestionLost means that a question in a room that the hub is subscribed to
// has not reached even the hub itself.
var errQuestionLost = errors.New("the question was lost")

// take takes the list of a hub.
func (p *roomPresence) take(f *presence.Follower, hub uint64, a *control.Answer, doubts uint64) {
	rs := p.room
	rs.mu.Lock()
	var w wakeups
	switch {
	case p.follower != f:
	case a.Seq == 0 && f.State(hub) == presence.Unknown: // it has announced nobody
	case rs.hub.lookout.takesForGone(hub):
		p.owed[hub] = true
	default:
		w = p.step(f.Snapshot(hub, a, doubts, time.Now()))
	}
	rs.mu.Unlock()
	w.run(rs.hub)
}

// answerPresence puts what a hub that follows a room wants to know of this one
// into the answer.
func (a *answering) answerPresence() (status control.Status, err error) {
	h, q := a.hub, a.question
	life := h.newStream() // members that join after the look get a larger one
	snapshot := &control.Answer{Status: control.StatusLast, Mode: control.ModeList}
	for _, room := range q.Names { // one
		if rs := h.lookup(h.names.Room(room)); rs != nil && rs.presence() != nil {
			snapshot = rs.presence().snapshot(q)
		}
	}
	if snapshot.Life == 0 { // nobody is here, whatever was before
		snapshot.Life = life
	}
	page := &a.page
	page.Life, page.Seq, page.Digest, page.Mode = snapshot.Life, snapshot.Seq, snapshot.Digest, snapshot.Mode
	page.Count = snapshot.Count
	for i := range snapshot.Entries {
		if err := a.put(&snapshot.Entries[i]); err != nil {
			return snapshot.Status, err
		}
	}
	return snapshot.Status, nil
}

// snapshot returns who is announced on this hub.
func (p *roomPresence) snapshot(q *control.Question) *control.Answer {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	if p.local == nil {
		return &control.Answer{Status: control.StatusLast, Mode: control.ModeList}
	}
	return p.local.Snapshot(q)
}
