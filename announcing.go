package fanout

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/presence"
	"github.com/fanoutgo/fanout/internal/roomlog"
	"github.com/fanoutgo/fanout/internal/schedule"
)

// A roomPresence is who is in a room with presence. It drives package presence:
// a Local, while members are here, announces them, and a Follower, while the
// room is subscribed, knows who is in the room on all hubs. The lock of the
// room guards all that changes.
//
//	open, unlist, SetInfo ─▶ events ─▶ Local ─▶ send ─▶ the room's channel
//	the room's channel ─▶ receive ─┐
//	answers to questions ─▶ take ──┼─▶ Follower ─▶ step ─▶ the room's log
//	the lookout ─▶ hubGone ────────┘
type roomPresence struct {
	room   *roomState      // never changed, like params
	params presence.Params // of Options.Room

	local  *presence.Local // nil: nobody has been here for a while
	events []localEvent    // that the Local has not been told of
	held   bool            // the room is in use, since there is something to announce

	follower *presence.Follower            // nil: the room is not subscribed
	ctx      context.Context               // of its questions
	cancel   context.CancelFunc            // ends it
	asked    map[uint64]context.CancelFunc // ends the last question to each hub
	settling bool                          // all hubs are being asked, so that asking one is of no use
	asking   bool                          // settle is running
	asks     int                           // how often askEverybody was called
	// owed are hubs that were taken for gone when an announcement or a list of
	// theirs came. They are asked when they are back.
	owed   map[uint64]bool
	list   []byte // encoded
	listed uint64 // the number of the last change in list
}

// A localEvent is something that has happened to a member of this hub.
type localEvent struct {
	member *Member
	what   localChange
	info   []byte
}

type localChange uint8

const (
	memberCame localChange = iota
	memberWent
	memberChanged
)

// note notes what has happened to a member of the room. The Local is told by
// the announcer: a member's info has a lock that comes before that of the room.
func (p *roomPresence) note(m *Member, what localChange) {
	p.room.mu.AssertHeld()
	p.events = append(p.events, localEvent{member: m, what: what})
	if !p.held {
		p.held = true
		p.room.uses++ // it stays, and subscribed, until everything is announced
	}
	p.room.hub.announcer.due.At(p, time.Now())
}

// infoChanged tells the rooms of a member that have presence.
func (m *Member) infoChanged() {
	m.mu.AssertHeld()
	for ms := range m.rooms.All {
		p := ms.room.presence()
		if p == nil {
			continue
		}
		p.room.mu.Lock()
		if ms.joined && !ms.retired {
			p.note(m, memberChanged)
		}
		p.room.mu.Unlock()
	}
}

// run does what is due: it is called by the announcer only.
func (p *roomPresence) run(now time.Time) {
	rs, h := p.room, p.room.hub
	rs.mu.Lock()
	events := p.events
	p.events = nil
	rs.mu.Unlock()
	for i := range events {
		if e := &events[i]; e.what != memberWent {
			e.info = e.member.Info()
		}
	}
	rs.mu.Lock()
	for i := range events {
		p.tell(&events[i], now)
	}
	var w wakeups
	if f := p.follower; f != nil && due(f.Next(), now) {
		w = p.step(f.Tick(now))
	}
	var a *control.Announcement
	if p.local != nil {
		a = p.local.Announce(now)
		if p.local.Idle() {
			p.local = nil
		}
	}
	release := p.held && p.local == nil && len(p.events) == 0
	if release {
		p.held = false
	}
	p.schedule()
	rs.mu.Unlock()
	w.run(h)
	if a != nil {
		h.wg.Go(func() { p.send(a) })
	}
	if release {
		h.release(rs)
	}
}

// due reports whether a time has come; zero never does.
func due(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }

// tell tells the Local of an event.
func (p *roomPresence) tell(e *localEvent, now time.Time) {
	p.room.mu.AssertHeld()
	m := e.member
	if p.local == nil {
		if e.what != memberCame {
			return
		}
		p.local = presence.NewLocal(p.room.hub.newStream(), p.params)
		p.see()
	}
	switch e.what {
	case memberCame:
		p.local.Join(control.Entry{Number: m.num, Since: m.since(), Count: 1, Name: []byte(m.User()), Data: e.info})
	case memberWent:
		p.local.Leave(m.num, now)
	case memberChanged:
		p.local.SetInfo(m.num, e.info)
	}
}

// see tells the Local what the Follower knows.
func (p *roomPresence) see() {
	if p.local != nil && p.follower != nil {
		p.local.See(p.follower.Hubs(), p.follower.Total())
	}
}

// send publishes an announcement. If that fails the numbers are announced
// again, and others ask for what they miss.
func (p *roomPresence) send(a *control.Announcement) {
	rs, h := p.room, p.room.hub
	ctx, cancel := context.WithTimeout(h.ctx, noticeTimeout)
	defer cancel()
	receivers, err := rs.way().notify(ctx, h.controlFrame(a.Append(nil)))
	rs.mu.Lock()
	defer rs.mu.Unlock()
	p.local.Sent(err == nil && receivers != 0, time.Now()) // it is there while one is under way
	p.schedule()
}

// schedule has the announcer look at the room when something is due.
func (p *roomPresence) schedule() {
	p.room.mu.AssertHeld()
	var at time.Time
	if p.local != nil {
		at = p.local.Next()
	}
	if p.follower != nil {
		if next := p.follower.Next(); at.IsZero() || !next.IsZero() && next.Before(at) {
			at = next
		}
	}
	if !at.IsZero() {
		p.room.hub.announcer.due.At(p, at)
	}
}

// follow begins to find out who is in the room: it is subscribed now.
func (p *roomPresence) follow() {
	p.room.mu.AssertHeld()
	h := p.room.hub
	p.follower = presence.NewFollower()
	p.ctx, p.cancel = context.WithCancel(h.ctx)
	p.asked, p.owed = make(map[uint64]context.CancelFunc), make(map[uint64]bool)
	p.list, p.listed, p.asking = nil, 0, false
	h.announcer.follow(p)
	p.askEverybody()
}

// askEverybody asks all hubs who is there, until all have answered.
func (p *roomPresence) askEverybody() {
	p.room.mu.AssertHeld()
	p.settling = true
	p.asks++
	if p.asking {
		return // it notices
	}
	p.asking = true
	ctx, f := p.ctx, p.follower
	p.room.hub.wg.Go(func() { p.settle(ctx, f) })
}

// unfollow is called when the room is no longer subscribed.
func (p *roomPresence) unfollow() {
	p.room.mu.AssertHeld()
	if p.follower == nil {
		return
	}
	p.room.hub.announcer.unfollow(p)
	p.cancel()
	p.follower, p.asked, p.owed, p.list = nil, nil, nil, nil
}

// restored is called after an interruption of the room's subscription:
// announcements of others may be missing, and those of this hub at others.
func (p *roomPresence) restored() wakeups {
	p.room.mu.AssertHeld()
	now := time.Now()
	p.repeat(now)
	if p.follower == nil {
		return wakeups{}
	}
	p.askEverybody() // some may have come meanwhile
	return p.step(p.follower.Doubt(now))
}

// back is called when others have taken this hub for gone.
func (p *roomPresence) back() {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	p.repeat(time.Now())
}

// repeat has the hub announce again what it announced last.
func (p *roomPresence) repeat(now time.Time) {
	p.room.mu.AssertHeld()
	if p.local != nil {
		p.local.Repeat(now)
		p.schedule()
	}
}

// step does what follows from an event of the Follower.
func (p *roomPresence) step(s presence.Step) wakeups {
	p.room.mu.AssertHeld()
	p.see()
	switch {
	case p.settling: // all are being asked
	case len(s.Ask) > askOneByOne:
		p.askEverybody()
	default:
		for _, a := range s.Ask {
			p.ask(a)
		}
	}
	p.schedule()
	if s.Change == nil {
		return wakeups{}
	}
	return p.room.append(roomlog.Gap{}, []item.Entry{entryOfChange(s.Change)})
}

// receive takes an announcement of a hub, at its place in the room's channel.
func (p *roomPresence) receive(from uint64, payload []byte) {
	rs := p.room
	c, err := control.Decode(payload)
	a, ok := c.(*control.Announcement)
	switch {
	case errors.Is(err, control.ErrUnknown): // of a newer release
		return
	case err != nil || !ok:
		rs.hub.malformed(rs.channel, err)
		return
	}
	rs.mu.Lock()
	var w wakeups
	switch {
	case p.follower == nil:
	case rs.hub.lookout.takesForGone(from):
		p.owed[from] = true // it would bring its members back
	default:
		w = p.step(p.follower.Receive(from, a, time.Now()))
	}
	rs.mu.Unlock()
	w.run(rs.hub)
}

// hubGone takes the members of a hub that has ended off the list: at once, or
// after the grace period if it ended in order.
func (p *roomPresence) hubGone(hub uint64, inOrder bool) {
	rs := p.room
	rs.mu.Lock()
	var w wakeups
	switch f := p.follower; {
	case f == nil:
	case inOrder:
		w = p.step(f.Left(hub, time.Now(), p.params.Grace))
	default:
		w = p.step(f.Gone(hub))
	}
	rs.mu.Unlock()
	w.run(rs.hub)
}

// hubCame asks a hub that is back for what it has announced meanwhile. While this
// hub is new it may have asked everybody before it knew of that one.
func (p *roomPresence) hubCame(hub uint64) {
	rs := p.room
	rs.mu.Lock()
	var w wakeups
	switch l := &rs.hub.lookout; {
	case p.follower == nil:
	case p.owed[hub]:
		delete(p.owed, hub)
		w = p.step(p.follower.Came(hub, time.Now()))
	case p.follower.State(hub) == presence.Unknown && l.isNew() && (p.asking || l.blind.Load()):
		p.askEverybody()
	}
	rs.mu.Unlock()
	w.run(rs.hub)
}

// An announcer has rooms with presence do what is due.
type announcer struct {
	due   schedule.Schedule[*roomPresence]
	slots chan struct{} // one for each question that is under way

	mu        locks.Mutex[locks.Innermost] // guards following
	following map[*roomPresence]struct{}   // rooms that are subscribed
}

func (a *announcer) init() {
	a.due.Init()
	a.slots = make(chan struct{}, maxSnapshots)
	a.following = make(map[*roomPresence]struct{})
}

func (a *announcer) run(ctx context.Context) { a.due.Run(ctx, (*roomPresence).run) }

func (a *announcer) follow(p *roomPresence) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.following[p] = struct{}{}
}

func (a *announcer) unfollow(p *roomPresence) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.following, p)
}

// each calls f for each room that is subscribed, without locks.
func (a *announcer) each(f func(*roomPresence)) {
	a.mu.Lock()
	all := slices.Collect(maps.Keys(a.following))
	a.mu.Unlock()
	for _, p := range all {
		f(p)
	}
}
