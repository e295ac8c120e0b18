package questions

import (
	"slices"
	"time"

	"github.com/fanoutgo/fanout/internal/ask"
	"github.com/fanoutgo/fanout/internal/control"
)

// This file decides which hubs a question waits for.

// absentTime is how long notices to a hub must have reached nobody before an
// asker takes the hub for gone.
const absentTime = 2 * time.Second

// unheardTime is how long a question waits for a hub that was never heard, on a
// backend that does not count receivers. Hubs know of each other a second after
// they start.
const unheardTime = 2 * time.Second

// expect says for which hubs the question waits though the backend may not
// count them. Commands wait for all that are there, and hubs that ask for lists
// of presence ask again.
func (a *asking) expect(there []ask.Known) {
	switch {
	case a.question.Op.IsCommand():
		a.state.Thorough()
	case a.question.Op == control.OpPresence:
	case a.lanes[0].Inbox:
		for i, l := range a.lanes {
			a.expectHub(l.Hub, uint64(i))
		}
	case a.question.Scope == control.ScopeEveryone:
		for _, k := range there {
			a.expectHub(k.Hub, 0)
		}
	default:
		a.listens = a.board.env.Listens(&a.question)
		a.state.Expect(a.own(), a.listens...)
	}
}

// expectHub has the question wait for a hub, if its end would be noticed.
func (a *asking) expectHub(hub, channel uint64) {
	if hub == a.own() || a.board.env.IsWatched(hub) {
		a.state.Expect(hub, channel)
	}
}

// expectOwn takes note of rooms that this hub has left since the question was
// asked: there it no longer gets the question.
func (a *asking) expectOwn() {
	if len(a.listens) == 0 {
		return
	}
	listens := a.board.env.Listens(&a.question)
	a.listens = slices.DeleteFunc(a.listens, func(c uint64) bool { return !slices.Contains(listens, c) })
	a.state.Expect(a.own(), a.listens...)
}

// roll asks which hubs listen to the channels of the selection. For inboxes
// this is known: if the backend counts receivers, a hub that is not there is
// not waited for.
func (a *asking) roll() {
	now := time.Now()
	env := &a.board.env
	if a.lanes[0].Inbox {
		there := make(map[uint64]bool)
		for _, k := range env.Known() {
			there[k.Hub] = true
			a.state.Rolled(k.Hub, nil, now)
		}
		for i, l := range a.lanes {
			switch {
			case there[l.Hub], a.awaits(l.Hub, now):
				a.state.Rolled(l.Hub, []uint64{uint64(i)}, now)
			case a.uncounted:
				a.state.Absent(l.Hub)
			}
		}
		return
	}
	q := a.question
	q.ID, q.Op, q.Data, q.Text, q.Rooms = q.ID|1, control.OpRoll, nil, nil, nil
	frame, everyone := env.Notices.Frame(&q), env.Notices.Everyone()
	env.Notices.Beside(everyone, func() { _, _ = everyone.Notify(a.ctx, frame) }) // it is sent again
}

// awaits reports whether to wait for the answer of a hub that is not known to
// be there. On a backend that counts receivers, that is so if the hub got the
// question, and not if it did not get a command. On others, a hub that was
// never heard may have started a moment ago, and is waited for until it would
// have been heard.
func (a *asking) awaits(hub uint64, now time.Time) bool {
	env := &a.board.env
	switch {
	case env.IsGone(hub):
		return false
	case a.uncounted:
		return env.IsNew() || now.Sub(a.began) < unheardTime
	}
	return !a.question.Op.IsCommand()
}

// there returns the hubs that are known to be there, and those of members who
// are asked if they may be there.
func (a *asking) there(now time.Time) []ask.Known {
	there := a.board.env.Known()
	for _, l := range a.lanes {
		if l.Inbox && a.awaits(l.Hub, now) {
			there = append(there, ask.Known{Hub: l.Hub})
		}
	}
	return there
}

// late ends the wait for a hub that had ended before the question was asked, if
// all that comes from it is that the question has arrived.
func (a *asking) late(n *news, now time.Time) {
	if (n.roll || !n.answer.Status.HasPage()) && a.board.env.IsGone(n.from) {
		delete(a.open, n.from)
		a.do(a.state.Gone(n.from, now))
	}
}

// missing notes that a hub that is to answer is not there.
func (a *asking) missing(hub uint64, now time.Time) {
	since, before := a.absent[hub]
	switch {
	case !before:
		a.absent[hub] = now
	case now.Sub(since) >= absentTime:
		delete(a.open, hub)
		a.do(a.state.Gone(hub, now))
	}
}
