package announcer

import (
	"context"
	"errors"
	"time"

	"github.com/fanoutgo/fanout/internal/backoff"
	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/presence"
	"github.com/fanoutgo/fanout/internal/questions"
)

const (
	// settleTime is how long the first list of a room waits for hubs that do
	// not answer.
	settleTime = 5 * time.Second
	// snapshotTimeout bounds how long one hub may take to send its list. After
	// that it is asked again.
	snapshotTimeout = 10 * time.Second
	// maxSnapshots bounds the questions for lists that are under way at a time.
	maxSnapshots = 64
	// askOneByOne is the largest number of hubs of a room that are asked one by
	// one. More are asked by one question in the room's channel.
	askOneByOne = 4
)

// Follow begins to find out who is in the room: it is subscribed now. The lock
// is held.
func (r *Room) Follow() {
	r.mu.AssertHeld()
	r.follower = presence.NewFollower()
	r.ctx, r.cancel = context.WithCancel(r.announcer.env.Notices.Context)
	r.asked, r.owed = make(map[uint64]context.CancelFunc), make(map[uint64]bool)
	r.list, r.listed, r.asking, r.whole = nil, 0, false, time.Now()
	r.announcer.follow(r)
	r.askEverybody()
}

// Unfollow is called when the room is no longer subscribed. The lock is held.
func (r *Room) Unfollow() {
	r.mu.AssertHeld()
	if r.follower == nil {
		return
	}
	r.announcer.unfollow(r)
	r.cancel()
	r.follower, r.asked, r.owed, r.list = nil, nil, nil, nil
}

// askEverybody asks all hubs who is there, until all have answered.
func (r *Room) askEverybody() {
	r.mu.AssertHeld()
	r.settling = true
	r.asks++
	if r.asking {
		return // settle notices
	}
	r.asking = true
	ctx, f := r.ctx, r.follower
	r.announcer.env.Go(func() { r.settle(ctx, f) })
}

// settle asks all hubs who is there, until all have answered, after the last
// interruption.
func (r *Room) settle(ctx context.Context, f *presence.Follower) {
	began, doubts := time.Now(), uint64(0)
	for pause := (backoff.Backoff{}); ; {
		r.mu.Lock()
		asks := r.asks
		if doubts != f.Doubts() {
			began, doubts = time.Now(), f.Doubts()
		}
		r.mu.Unlock()
		asking, cancel := context.WithTimeout(ctx, settleTime)
		err := r.question(asking, f, presence.Ask{Doubts: doubts})
		cancel()
		if complete := r.settled(f, doubts, asks, err == nil, time.Since(began) >= settleTime); complete || !pause.Wait(ctx) {
			return
		}
	}
}

// settled notes that all hubs have been asked, and whether all have answered.
// It returns false if they are to be asked again. With late, the first list
// does not wait any longer.
func (r *Room) settled(f *presence.Follower, doubts uint64, asks int, answered, late bool) (complete bool) {
	r.mu.Lock()
	wake := nothing
	complete = answered && f.Doubts() == doubts && r.asks == asks
	if r.follower == f {
		r.asking = !complete
		if complete || late {
			r.settling = false
			wake = r.step(f.Settle())
		}
	}
	r.mu.Unlock()
	wake()
	return complete
}

// ask asks a hub for its list, on another goroutine. It ends an earlier
// question to that hub.
func (r *Room) ask(a presence.Ask) {
	r.mu.AssertHeld()
	if cancel := r.asked[a.Hub]; cancel != nil {
		cancel()
	}
	ctx, cancel := context.WithTimeout(r.ctx, snapshotTimeout)
	r.asked[a.Hub] = cancel
	f := r.follower
	r.announcer.env.Go(func() {
		defer cancel()
		_ = r.question(ctx, f, a) // the follower asks again
	})
}

// question asks a hub for its list, or all hubs by the room's channel (hub 0),
// and gives the lists to the Follower. Hubs of a release without presence
// announce no members.
func (r *Room) question(ctx context.Context, f *presence.Follower, a presence.Ask) error {
	slots, env := r.announcer.slots, &r.announcer.env
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	lists, own := make(map[uint64][]control.Entry), false
	q := &control.Question{Op: control.OpPresence, Names: []string{r.host.Name()}, Life: a.Life, Seq: a.Seq, Digest: a.Digest}
	err := env.Ask(ctx, q, func(hub uint64, page *control.Answer) bool {
		list := append(lists[hub], page.Entries...)
		if lists[hub] = list; !page.Status.Final() {
			return len(list) <= presence.MaxMembers
		}
		delete(lists, hub)
		own = own || hub == env.Notices.Hub
		snapshot := *page
		snapshot.Entries = list
		r.take(f, hub, &snapshot, a.Doubts)
		return true
	}, func(q *control.Question) []questions.Lane {
		q.Scope = control.ScopeRooms
		if a.Hub != 0 {
			return []questions.Lane{{Out: env.Notices.Inbox(a.Hub), Inbox: true, Hub: a.Hub}}
		}
		return []questions.Lane{env.Lane(r.host.Name())}
	})
	if incomplete, is := errors.AsType[*questions.Incomplete](err); is && incomplete.Err == nil {
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
func (r *Room) take(f *presence.Follower, hub uint64, a *control.Answer, doubts uint64) {
	r.mu.Lock()
	wake := nothing
	switch {
	case r.follower != f:
	case a.Seq == 0 && f.State(hub) == presence.Unknown: // it has announced nobody
	case r.announcer.env.IsGone(hub):
		r.owe(hub)
	default:
		wake = r.step(f.Snapshot(hub, a, doubts, time.Now()))
	}
	r.mu.Unlock()
	wake()
}
