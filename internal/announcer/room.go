package announcer

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/notices"
	"github.com/fanoutgo/fanout/internal/presence"
)

// A Room tracks who is in a room with presence. Methods that say so are called
// with the lock of the room held, the others without.
type Room struct {
	// Params are those of the room. They do not change.
	Params presence.Params

	host      Host // never changed, like mu and announcer
	mu        *locks.Mutex[locks.Room]
	announcer *Announcer

	local  *presence.Local // nil: nobody has been here for a while
	events []event         // that the Local has not been told of
	held   bool            // the room is in use, since there is something to announce

	follower *presence.Follower            // nil: the room is not subscribed
	ctx      context.Context               // of its questions
	cancel   context.CancelFunc            // ends it
	asked    map[uint64]context.CancelFunc // ends the last question to each hub
	settling bool                          // all hubs are being asked, so there is no need to ask one
	asking   bool                          // settle is running
	asks     int                           // how often askEverybody was called
	whole    time.Time                     // announcements have been complete since then
	// owed has hubs that were taken for gone when an announcement or a list of
	// theirs came, or while a list was awaited. They are asked when they are back.
	owed   map[uint64]bool
	list   []byte // encoded
	listed uint64 // the number of the last change in list
}

// Init prepares r. The caller has set Params.
func (r *Room) Init(a *Announcer, host Host) { r.announcer, r.host, r.mu = a, host, host.Mutex() }

// An event is something that has happened to a member of this hub.
type event struct {
	member Member
	what   change
	entry  control.Entry // of a member that has not gone
}

type change uint8

const (
	came change = iota
	went
	changed
)

// Came notes that a member has joined the room. The lock is held, as for Went
// and Changed. The announcer tells the Local later, because the lock of a
// member's info comes before that of the room.
func (r *Room) Came(m Member) { r.note(m, came) }

// Went notes that a member has left the room.
func (r *Room) Went(m Member) { r.note(m, went) }

// Changed notes that a member has another info.
func (r *Room) Changed(m Member) { r.note(m, changed) }

func (r *Room) note(m Member, what change) {
	r.mu.AssertHeld()
	r.events = append(r.events, event{member: m, what: what})
	if !r.held {
		r.held = true
		r.host.Use() // until everything is announced
	}
	r.announcer.due.At(r, time.Now())
}

// run does what is due. Only the announcer calls it.
func (r *Room) run(now time.Time) {
	r.mu.Lock()
	events := r.events
	r.events = nil
	r.mu.Unlock()
	for i := range events {
		if e := &events[i]; e.what != went {
			e.entry = e.member.Entry()
		}
	}
	r.mu.Lock()
	for i := range events {
		r.tell(&events[i], now)
	}
	wake := nothing
	if f := r.follower; f != nil && due(f.Next(), now) {
		wake = r.step(f.Tick(now))
	}
	var a *control.Announcement
	if r.local != nil {
		a = r.local.Announce(now)
		if r.local.Idle() {
			r.local = nil
		}
	}
	release := r.held && r.local == nil && len(r.events) == 0
	if release {
		r.held = false
	}
	r.schedule()
	r.mu.Unlock()
	wake()
	if a != nil {
		r.announcer.env.Go(func() { r.send(a) })
	}
	if release {
		r.host.Release()
	}
}

// nothing is a wake function that does nothing.
func nothing() {}

// due reports whether a time has come; zero never does.
func due(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }

// tell tells the Local of an event.
func (r *Room) tell(e *event, now time.Time) {
	r.mu.AssertHeld()
	if r.local == nil {
		if e.what != came {
			return
		}
		r.local = presence.NewLocal(r.announcer.env.NewLife(), r.Params)
		r.see()
	}
	switch e.what {
	case came:
		r.local.Join(e.entry)
	case went:
		r.local.Leave(e.member.Number(), now)
	case changed:
		r.local.SetInfo(e.member.Number(), e.entry.Data)
	}
}

// see tells the Local what the Follower knows.
func (r *Room) see() {
	r.mu.AssertHeld()
	if r.local != nil && r.follower != nil {
		r.local.See(r.follower.Hubs(), r.follower.Total())
	}
}

// send publishes an announcement. If that fails, its numbers are announced
// again, and other hubs ask for what they miss.
func (r *Room) send(a *control.Announcement) {
	send := r.announcer.env.Notices
	ctx, cancel := context.WithTimeout(send.Context, notices.Timeout)
	defer cancel()
	receivers, err := r.host.Outgoing().Notify(ctx, send.Frame(a))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.local.Sent(err == nil && receivers != 0, time.Now()) // the Local is there while an announcement is under way
	r.schedule()
}

// schedule makes the announcer call run when something is due.
func (r *Room) schedule() {
	r.mu.AssertHeld()
	var at time.Time
	if r.local != nil {
		at = r.local.Next()
	}
	if r.follower != nil {
		if next := r.follower.Next(); at.IsZero() || !next.IsZero() && next.Before(at) {
			at = next
		}
	}
	if !at.IsZero() {
		r.announcer.due.At(r, at)
	}
}

// Snapshot returns who is announced on this hub, as the answer to a question of
// a hub that follows the room. Its Life is zero if nobody is here.
func (r *Room) Snapshot(q *control.Question) *control.Answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.local == nil {
		return &control.Answer{Status: control.StatusLast, Mode: control.ModeList}
	}
	return r.local.Snapshot(q)
}

// Restored is called, with the lock held, after an interruption of the room's
// subscription: announcements of other hubs may be missing here, and those of
// this hub elsewhere. The caller calls wake after it has released the lock.
func (r *Room) Restored() (wake func()) {
	r.mu.AssertHeld()
	now := time.Now()
	r.repeat(now)
	if r.follower == nil {
		return nothing
	}
	r.whole = now
	r.askEverybody() // some may have come meanwhile
	return r.step(r.follower.Doubt(now))
}

// back is called when others have taken this hub for gone.
func (r *Room) back() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.repeat(time.Now())
}

// repeat makes the hub repeat its last announcement.
func (r *Room) repeat(now time.Time) {
	r.mu.AssertHeld()
	if r.local != nil {
		r.local.Repeat(now)
		r.schedule()
	}
}

// step acts on a Step of the Follower. The caller calls wake after it has
// released the lock.
func (r *Room) step(s presence.Step) (wake func()) {
	r.mu.AssertHeld()
	r.see()
	switch {
	case r.settling: // all are being asked
	case len(s.Ask) > askOneByOne:
		r.askEverybody()
	default:
		for _, a := range s.Ask {
			r.ask(a)
		}
	}
	r.schedule()
	if s.Change == nil {
		return nothing
	}
	return r.host.Append(item.Entry{Data: s.Change.Append(nil), Sender: Sender, Filter: item.Numbered(s.Change.Number)})
}

// Receive takes an announcement of a hub, at its place in the room's channel.
func (r *Room) Receive(from uint64, payload []byte) {
	c, err := control.Decode(payload)
	a, ok := c.(*control.Announcement)
	switch {
	case errors.Is(err, control.ErrUnknown): // of a newer release
		return
	case err != nil || !ok:
		r.announcer.env.Malformed(r.host.Channel(), err)
		return
	}
	r.mu.Lock()
	wake := nothing
	switch {
	case r.follower == nil:
	case r.announcer.env.IsGone(from):
		r.owe(from) // applying it would bring its members back
	default:
		wake = r.step(r.follower.Receive(from, a, time.Now()))
	}
	r.mu.Unlock()
	wake()
}

// hubGone removes the members of a hub that has ended from the list. A hub that
// was taken for dead may be back by now: then it has announced its members
// again, or will.
func (r *Room) hubGone(hub uint64, inOrder bool, now time.Time) {
	r.mu.Lock()
	wake := nothing
	switch f := r.follower; {
	case f == nil:
	case inOrder:
		wake = r.step(f.Left(hub, now, r.Params.Grace))
	case r.announcer.env.IsGone(hub):
		if f.State(hub) == presence.Stale {
			r.owe(hub)
		}
		wake = r.step(f.Gone(hub))
	}
	r.mu.Unlock()
	wake()
}

// maxOwed bounds owed: when it is reached, hubs that are no longer remembered
// as gone are removed. Such a hub counts as met if it comes back.
const maxOwed = 64

// owe notes a hub that is to be asked when it is back.
func (r *Room) owe(hub uint64) {
	r.mu.AssertHeld()
	if len(r.owed) >= maxOwed {
		maps.DeleteFunc(r.owed, func(other uint64, _ bool) bool { return !r.announcer.env.IsGone(other) })
	}
	r.owed[hub] = true
}

// clockSkew is the difference between hubs' clocks that is tolerated. If the
// clock of a hub that began while this one was cut off is further ahead, its
// members may be unknown here until they change. If it is further behind, the
// hub is asked needlessly.
const clockSkew = 5 * time.Second

// hubCame asks a hub that is back for what it has announced meanwhile. A hub
// that is met is asked, too, if it may have announced members before the room
// was subscribed, or while this hub was cut off: everybody was asked then, but
// where the backend does not count nobody has waited for its answer. While this
// hub is new, it asks everybody again, since many are met then.
func (r *Room) hubCame(hub uint64, met bool) {
	r.mu.Lock()
	wake := nothing
	switch env := &r.announcer.env; {
	case r.follower == nil:
	case r.owed[hub]:
		delete(r.owed, hub)
		wake = r.step(r.follower.Came(hub, time.Now()))
	case r.follower.State(hub) != presence.Unknown || !r.asking && !env.Uncounted():
	case env.IsNew():
		r.askEverybody()
	case met && env.Since(hub).Before(r.whole.Add(clockSkew)):
		wake = r.step(r.follower.Came(hub, time.Now()))
	}
	r.mu.Unlock()
	wake()
}

// Number returns the number of the last change; 0 before the first list. The
// lock is held.
func (r *Room) Number() uint64 {
	r.mu.AssertHeld()
	if r.follower == nil {
		return 0
	}
	return r.follower.Number()
}

// List returns the list of who is there, encoded, and the number of the last
// change in it. It is encoded once for all members that need it. The lock is
// held.
func (r *Room) List() (list []byte, number uint64) {
	number = r.Number()
	if number > 0 && r.listed != number {
		r.list, r.listed = r.follower.List().Append(nil), number
	}
	return r.list, number
}
