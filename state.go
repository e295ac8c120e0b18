package fanout

import (
	"context"
	"hash/maphash"
	"slices"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/internal/clock"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/life"
	"github.com/fanoutgo/fanout/internal/linked"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/notify"
	"github.com/fanoutgo/fanout/internal/publishing"
	"github.com/fanoutgo/fanout/internal/roomlog"
	"github.com/fanoutgo/fanout/internal/sequence"
)

// A room is one hub's part of a room: the log, the members on this hub, the
// subscription, and the numbers of messages received and published. It exists
// while it has members or is being joined or published to, and for a while
// after that.
//
// The log's order is made under mu: Receive, and Publish of Local selections,
// append under it. Wake-ups and calls of the adapter happen after it is
// released. The order of all locks is in docs/ARCHITECTURE.md.
//
// Most rooms have not been used for a while, so fetching them from memory takes
// the longest. Fields that are needed together are therefore close together, in
// lines of 64 bytes.
type room struct {
	// What publishing needs.
	hub  *Hub
	kept *roomHistory                       // nil: the room keeps no history
	rare *rare                              // what few rooms have; nil: nothing of it
	out  atomic.Pointer[publishing.Channel] // nil until something is published

	mu   locks.Mutex[locks.Room] // guards all below, except where a comment says otherwise
	life life.Life               // its subscription, and whether it is used; its times are those of package clock

	// What arriving frames need as well.
	in      sequence.Tracker
	members linked.List[membership, *membership]
	log     roomlog.Log[item.Entry, *membership] // it has a lock of its own

	name    string // never changed, like channel; empty for the room of everyone
	channel string
	changed notify.Notifier // tells of changes of its subscription, and of what is known of the history
	sweptAt uint64          // OldestKept at the last search for slow members
}

func newRoom(h *Hub, name, channel string, kept *roomHistory, limits *limits, special *rare) *room {
	r := &room{hub: h, name: name, channel: channel, kept: kept, rare: special}
	if p := r.presence(); p != nil {
		p.Init(&h.announcer, roomView{r})
	}
	r.log.Init(limits)
	if kept != nil {
		kept.Init(historyHost{r}, &r.in)
	}
	return r
}

// acquire returns a room, which stays until it is released.
func (h *Hub) acquire(name, channel string) *room {
	h.mu.RLock()
	r := h.rooms[channel]
	if r != nil {
		r.mu.Lock() // under h.mu: the janitor removes under both
		r.life.Use()
		r.mu.Unlock()
	}
	h.mu.RUnlock()
	if r != nil {
		return r
	}
	kept, limits, special := h.roomOptions(name, channel) // calls the user, so no lock is held
	h.mu.Lock()
	defer h.mu.Unlock()
	r = h.rooms[channel]
	if r == nil {
		r = newRoom(h, name, channel, kept, limits, special)
		h.rooms[channel] = r
	}
	r.mu.Lock()
	r.life.Use()
	r.mu.Unlock()
	return r
}

// hold is acquire for callers that have the room already. It returns false if
// the hub has forgotten the room.
func (r *room) hold() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.life.Use()
}

// await makes ms a member of the room once the hub's own channels and the
// room's channel are subscribed and, if there is a history, its place there is
// known. A Resume (rp) enters the room itself; a Join at the same time waits
// for its outcome.
func (r *room) await(ctx context.Context, ms *membership, rp *memberReplay) error {
	if err := r.awaitOthers(ctx, ms); err != nil {
		return err
	}
	var admitted admission
	asked := false // for the place in the history
	for {
		r.mu.Lock()
		switch {
		case ms.left.Load():
			r.mu.Unlock()
			return ms.endError()
		case ms.joined:
			r.mu.Unlock()
			return nil
		case r.follows() && !admitted.stands(r):
			if err := admitted.ask(ctx, ms); err != nil {
				return err
			}
			continue
		case r.follows() && !ms.resumes():
			r.open(ms)
			listed := r.parkNew(ms)
			r.mu.Unlock()
			if listed {
				ms.member.enqueue(ms)
			}
			return nil
		case r.follows() && rp != nil:
			if done, err := r.resume(ctx, ms, rp); done || err != nil {
				return err
			}
			continue
		case r.follows():
		case r.life.Receives() && !r.kept.Follower.Reading():
			if err := r.kept.Follower.Err(); asked && err != nil {
				r.mu.Unlock()
				return err
			}
			r.kept.CatchUp()
		case r.life.State() == life.Off: // the first one that needs it subscribes
			r.life.Start()
			asking, cancel := context.WithCancelCause(ctx)
			ms.waiting().cancel = cancel
			r.mu.Unlock()
			if err := r.subscribe(asking, ms, cancel); err != nil {
				return err
			}
			continue
		}
		changed, moved := r.whenChanged(), ms.WhenMoved()
		asked = asked || r.life.State() == life.On && r.kept != nil && r.kept.Follower.Reading()
		r.mu.Unlock()
		if err := ms.Wait(ctx, changed, moved); err != nil {
			return err
		}
	}
}

// An admitCall is a call of Options.Admit that is under way.
type admitCall struct{ cancel context.CancelCauseFunc }

// beginCall returns the context of a call of Options.Admit. It ends with ctx,
// when the member leaves or ends (the cause is the membership's endError), when
// another Join brings it into the room (ErrJoined), and when the hub closes
// (ErrClosed). After the call end is called, without locks.
func (ms *membership) beginCall(ctx context.Context) (call context.Context, end func()) {
	ms.room.mu.AssertHeld()
	call, cancel := context.WithCancelCause(ctx)
	c := &admitCall{cancel}
	w := ms.waiting()
	w.calls = append(w.calls, c)
	stop := context.AfterFunc(ms.room.hub.open, func() { cancel(ErrClosed) })
	return call, func() {
		stop()
		cancel(nil)
		ms.room.mu.Lock()
		w.calls = slices.DeleteFunc(w.calls, func(o *admitCall) bool { return o == c })
		ms.room.mu.Unlock()
	}
}

// endCalls ends the calls of Options.Admit. It accepts a nil w.
func (w *waits) endCalls(cause error) {
	if w == nil {
		return
	}
	for _, c := range w.calls {
		c.cancel(cause)
	}
}

// Expulsions count the commands that took members of rooms out of rooms. Such a
// command cannot find a member whose Join was admitted and that is not in the
// room yet, so that Join asks again. Rooms share the counts: it does no harm if
// a Join asks once more than it has to.
type expulsions struct {
	seed   maphash.Seed
	counts [64]atomic.Uint64
}

func (e *expulsions) of(channel string) *atomic.Uint64 {
	return &e.counts[maphash.String(e.seed, channel)%uint64(len(e.counts))]
}

// whenChanged returns a channel that is closed when the subscription, or what
// is known of the history, changes.
func (r *room) whenChanged() <-chan struct{} {
	r.mu.AssertHeld()
	return r.changed.Wait()
}

// follows reports whether whatever is published from now on goes into the log
// or is reported missing there.
func (r *room) follows() bool {
	r.mu.AssertHeld()
	return r.life.Receives() && (r.kept == nil || r.kept.Follower.Follows())
}

// subscribe makes the adapter's call on behalf of all that wait. ctx is that of
// the first of them. If the call ends early, because ctx ends or because the
// member leaves, which calls cancel, the next one that waits tries again.
func (r *room) subscribe(ctx context.Context, ms *membership, cancel context.CancelCauseFunc) (err error) {
	stop := context.AfterFunc(r.hub.open, func() { cancel(ErrClosed) })
	err = errPanic // so that others do not wait for ever, whatever the adapter does
	defer func() {
		stop()
		cancel(nil)
		r.subscribed(ms, err)
	}()
	err = r.hub.adapter.Subscribe(ctx, r.channel)
	switch {
	case err == nil:
	case r.hub.isClosing():
		err = ErrClosed
	case ms.left.Load():
		err = ms.endError()
	}
	return err
}

// subscribed notes how a call of the adapter has ended that was made on behalf
// of a membership. Nothing of that call's context is kept.
func (r *room) subscribed(ms *membership, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.life.Subscribed(err == nil)
	if p := ms.place; p != nil && p.waits != nil {
		p.waits.cancel = nil
	}
	switch {
	case err == nil:
		r.in.BeginRun(time.Now())
		if r.kept != nil {
			r.kept.Begin(r.kept.Follower.Subscribed())
		}
		if p := r.presence(); p != nil {
			p.Follow()
		}
	case r.kept != nil:
		r.kept.Forget()
	}
	r.tell()
}

// tell wakes those that wait for a change.
func (r *room) tell() {
	r.mu.AssertHeld()
	r.changed.Notify()
}

// open puts a membership into the room, at the end of its log.
func (r *room) open(ms *membership) {
	r.mu.AssertHeld()
	ms.joined, ms.opened = true, r.in.Run()
	ms.setSince(r.hub.leftOut.Load())
	r.members.Add(ms)
	r.life.Join()
	r.log.Open(&ms.cursor, ms)
	if r.kept != nil {
		ms.place.last = public(r.kept.Follower.Position(), r.kept.mark)
	}
	if ms.place != nil {
		ms.doneWaiting()
	}
	ms.list()
	r.hasJoined(ms)
}

// remove takes a membership out. The member's walk is locked, and ms.left set.
func (r *room) remove(ms *membership) {
	ms.member.walk.AssertHeld()
	r.mu.Lock()
	queue := false
	if ms.joined {
		ms.joined = false
		uses := 0
		if ms.retired {
			ms.retired, uses = false, 1
		} else {
			r.unlist(ms)
		}
		ms.cursor.Close()
		queue = r.life.Release(uses, clock.Now())
	}
	ms.tell() // a Join that waits learns that it was overtaken
	if p := ms.place; p != nil {
		p.waits.endCalls(ms.endError())
		if p.waits != nil && p.waits.cancel != nil {
			p.waits.cancel(ErrLeft)
		}
	}
	subscribed := r.life.State() != life.Off
	r.mu.Unlock()
	if queue {
		r.hub.janitor.add(r, subscribed)
	}
}

// append adds a gap and entries to the log. The caller runs the wakeups after
// releasing the lock.
func (r *room) append(gap roomlog.Gap, entries []item.Entry) wakeups {
	r.mu.AssertHeld()
	return r.appendAfter(roomlog.Gap{}, gap, entries)
}

// appendAfter is append with a gap before all that lies before the run.
func (r *room) appendAfter(earlier, gap roomlog.Gap, entries []item.Entry) wakeups {
	r.mu.AssertHeld()
	return r.appended(r.log.AppendAfter(earlier, gap, entries))
}

// appended returns what follows an append to the log.
func (r *room) appended(log roomlog.Wakeups[item.Entry, *membership]) wakeups {
	r.mu.AssertHeld()
	w := wakeups{log: log}
	if r.overflow() == Disconnect && !r.catchesUp() {
		w.slow = r.slowMembers()
	}
	return w
}

// slowMembers finds members that fell out of the window. It looks at all of
// them, so it waits until the window has moved by a quarter.
func (r *room) slowMembers() (slow []*Member) {
	r.mu.AssertHeld()
	oldest := r.log.OldestKept()
	kept, _ := r.log.Kept()
	if oldest-r.sweptAt < uint64(max(1, kept/4)) {
		return nil
	}
	r.sweptAt = oldest
	for ms := range r.members.All {
		if ms.cursor.Overrun(oldest) && (ms.place == nil || ms.place.behind.Load() == within) {
			slow = append(slow, ms.member)
		}
	}
	return slow
}
