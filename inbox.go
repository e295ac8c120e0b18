package fanout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/internal/backoff"
	"github.com/fanoutgo/fanout/internal/batch"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/journal"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/roomlog"
	"github.com/fanoutgo/fanout/internal/sequence"
	"github.com/fanoutgo/fanout/internal/trial"
	"github.com/fanoutgo/fanout/internal/wire"
)

// An inbox is the channel on which other hubs reach the members of this one.
type inbox struct {
	hub     *Hub
	channel string

	mu          locks.Mutex[locks.Innermost] // guards all below
	in          sequence.Tracker
	interrupted bool
	used        bool            // a direct message has come
	echoes      []chan struct{} // closed when the next frame of our own arrives
}

// receive hands direct messages to their members. A missing message may have
// been for any of them, so all of them get a gap of unknown size.
func (b *inbox) receive(frame []byte) {
	h := b.hub
	var f batch.Batch
	switch err := f.Open(frame); {
	case errors.Is(err, wire.ErrNotice):
		h.notice(nil, b.channel, frame)
		return
	case err != nil:
		h.malformed(b.channel, err)
		b.tellAll()
		return
	}
	if f.Foreign() {
		return // nobody is named in it
	}
	head := f.Head
	h.hellos.Heard(head.Hub)
	b.mu.Lock()
	// What was missed before this run was reported when the run began.
	v := b.in.Accept(&head)
	lost := v.Missed > 0 || v.Unknown || b.interrupted
	if head.Hub == h.num {
		for _, c := range b.echoes {
			close(c)
		}
		b.echoes = nil
	} else {
		b.used = true
	}
	b.mu.Unlock()
	h.stats.received.Add(uint64(head.Count))
	h.stats.missed.Add(uint64(v.Lost()))
	h.stats.repeated.Add(uint64(v.Repeated))
	if lost {
		b.tellAll()
	}
	var u batch.Unpacker
	f.Unpack(&u, &h.home, v.Skip, v.Sender)
	for u.Read() {
		switch to, understood := u.To(), u.Understood(); {
		case to == nil:
		case understood:
			h.sendTo(to, roomlog.Gap{}, []item.Entry{u.Entry()})
		default:
			h.sendTo(to, roomlog.Gap{Missed: 1}, nil)
		}
	}
	n := u.TakeNotUnderstood()
	if n.Count > 0 && u.NoneUnderstood() { // nobody can tell whom they were for
		b.tellAll()
	}
	h.notUnderstood(b.channel, n)
}

// sendTo gives a direct message, or the news that one is missing, to those
// members in a list that are here.
func (h *Hub) sendTo(to wire.List, gap roomlog.Gap, entries []item.Entry) {
	numbers := item.MemberNumbers(h.id, to)
	members := make([]*Member, 0, len(numbers))
	h.mu.RLock()
	for _, n := range numbers {
		if m := h.members[n]; m != nil {
			members = append(members, m)
		}
	}
	h.mu.RUnlock()
	for _, m := range members {
		m.send(gap, entries)
	}
}

func (b *inbox) interrupt() {
	b.mu.Lock()
	b.interrupted = true
	b.mu.Unlock()
}

// restore tells the members that direct messages may be missing, unless none
// has ever come: programs that use none do not hear of links that broke.
func (b *inbox) restore() {
	b.mu.Lock()
	b.interrupted = false
	b.in.BeginRun(time.Now())
	used := b.used
	b.mu.Unlock()
	if used {
		b.tellAll()
	}
}

// tellAll tells every member that direct messages may be missing.
func (b *inbox) tellAll() {
	rs := b.hub.everyone
	b.hub.hearEveryone()
	rs.mu.Lock()
	w := rs.append(roomlog.Gap{Unknown: true}, nil)
	rs.mu.Unlock()
	w.run(b.hub)
}

// echo sends a message for nobody to the hub itself and waits until it is here.
func (b *inbox) echo(ctx context.Context) error {
	if err := b.hub.begin(1); err != nil {
		return err
	}
	defer b.hub.ops.Leave(1)
	arrived := make(chan struct{})
	b.mu.Lock()
	b.echoes = append(b.echoes, arrived)
	b.mu.Unlock()
	defer b.forget(arrived)
	o := b.hub.wayTo(b.hub.id)
	defer o.unhold(1)
	if err := o.publish(ctx, &wire.Message{Data: []byte{}}); err != nil {
		return err
	}
	select {
	case <-arrived:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-b.hub.closing:
		return ErrClosed
	}
}

func (b *inbox) forget(echo chan struct{}) {
	b.mu.Lock()
	b.echoes = slices.DeleteFunc(b.echoes, func(c chan struct{}) bool { return c == echo })
	b.mu.Unlock()
}

const (
	// ownRetry is the longest pause between attempts to subscribe to the hub's
	// own channels after the backend has refused.
	ownRetry = 500 * time.Millisecond
	// refusalAge is how long a refusal is still reported while the next attempt
	// waits for the backend.
	refusalAge = time.Second
)

// subscribeOwn subscribes to the channels that every hub listens to. What the
// backend refuses is tried again, as long as the hub lives: rights may be
// granted later.
func (h *Hub) subscribeOwn() {
	var said journal.OncePerMinute
	failed := false
	for delay := backoff.First; ; delay = min(2*delay, ownRetry) {
		err := h.trySubscribeOwn()
		switch {
		case h.ctx.Err() != nil:
			return
		case err == nil:
			h.own.Succeed()
			if failed {
				h.log.Info("fanout: hub's own channels are subscribed now", "hub", h.id)
			}
			return
		}
		failed = true
		h.own.Fail(err)
		if said.Due() {
			h.log.Error("fanout: hub gets no direct messages and none to everyone, and nobody can join; it tries again (said once a minute)",
				"hub", h.id, "error", err)
		}
		if errors.Is(err, ErrClosed) {
			return // the adapter is closed
		}
		sleep(h.ctx, delay)
	}
}

// trySubscribeOwn subscribes to both channels, or returns the first error.
func (h *Hub) trySubscribeOwn() error {
	outdated := time.AfterFunc(refusalAge, h.own.Retry)
	defer outdated.Stop()
	for _, channel := range []string{h.inbox.channel, h.everyone.channel} {
		if err := h.adapter.Subscribe(h.ctx, channel); err != nil {
			return fmt.Errorf("hub's own channel %s: %w", channel, err)
		}
	}
	return nil
}

// awaitOwn waits until the hub's own channels are subscribed. It ends earlier
// with ctx, with the hub, when the backend refuses, and, for a membership (nil:
// there is none), when its member ends or has left.
func (h *Hub) awaitOwn(ctx context.Context, ms *membership) error {
	return h.awaitTrial(ctx, h.own, ms)
}

// awaitTrial is awaitOwn for any subscription that is tried until it succeeds.
func (h *Hub) awaitTrial(ctx context.Context, t *trial.Trial, ms *membership) error {
	for !t.Succeeded() {
		changed, last := t.Last()
		if errors.Is(last, ErrRefused) || errors.Is(last, ErrClosed) {
			return last
		}
		var err error
		if ms != nil {
			var over bool
			if over, err = ms.awaitChange(ctx, changed); over {
				return nil // see roomState.await
			}
		} else {
			select {
			case <-changed:
			case <-ctx.Done():
				err = context.Cause(ctx)
			case <-h.closing:
				err = ErrClosed
			}
		}
		if err != nil && last != nil {
			err = fmt.Errorf("%w (last: %v)", err, last)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// receiveNotice takes a notice: a hello, or one that this release does not
// know. Those it ignores.
func (h *Hub) receiveNotice(channel string, frame []byte) {
	hello, err := wire.DecodeHello(frame)
	switch {
	case errors.Is(err, wire.ErrNotice):
	case err != nil:
		h.malformed(channel, err)
	default:
		h.hellos.Receive(&hello)
	}
}

// sayHello says hello until the hub ends, once the hub's own channels are
// subscribed.
func (h *Hub) sayHello() {
	select {
	case <-h.own.Done():
		h.hellos.Run(h.ctx)
	case <-h.ctx.Done():
	}
}

// canWrite reports whether all hubs that are there read a format level, so that
// a field which came with it may be written. It is false for a level above the
// first while the hub cannot know the others: in its first two seconds, and
// before the backend can be reached.
func (h *Hub) canWrite(level int) bool { return h.alone || h.hellos.Level() >= level }

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
