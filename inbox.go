package fanout

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/roomlog"
	"github.com/fanoutgo/fanout/internal/sequence"
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

// receive hands direct messages to their members. What is missing may have been
// for any of them, so all are told that they may have missed something.
func (b *inbox) receive(frame []byte) {
	h := b.hub
	var f batch
	switch err := f.open(frame); {
	case errors.Is(err, wire.ErrNotice):
		h.notice(nil, b.channel, frame)
		return
	case err != nil:
		h.malformed(b.channel, err)
		b.tellAll()
		return
	}
	if f.foreign != nil {
		return // nobody is named in it
	}
	head := f.head
	h.hellos.heard(head.Hub)
	b.mu.Lock()
	// What was missed before this run has been told of when that began.
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
	var u unpacker
	f.unpack(&u, h, v.Skip, v.Sender)
	for u.read() {
		switch to := u.view.To; {
		case u.unreadable() && to != nil:
			h.sendTo(to, roomlog.Gap{Missed: 1}, nil)
		case to != nil:
			h.sendTo(to, roomlog.Gap{}, []item.Entry{u.entry()})
		}
	}
	x := u.takeHole()
	if f.body.Unknown() != 0 && x.count > 0 { // nobody can tell whom they were for
		b.tellAll()
	}
	h.notUnderstood(b.channel, x)
}

// sendTo gives a direct message, or the news that one is missing, to those members
// in a list that are here.
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

// restore tells the members, unless nobody has ever sent a direct message here:
// who uses none should not hear of broken links that do not concern them.
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

// wayTo returns the way to the inbox of a hub, which stays until unhold.
func (h *Hub) wayTo(hub string) *outbound {
	h.outMu.Lock()
	defer h.outMu.Unlock()
	o := h.outbox[hub]
	if o == nil {
		o = new(outbound)
		o.init(h, nil, h.names.Inbox(hub))
		o.to = hub
		h.outbox[hub] = o
		if len(h.outbox) == 1 {
			defer h.janitor.wake()
		}
	}
	o.uses++
	return o
}

// sweepOutbox forgets the ways to hubs that nothing was sent to for a while, and
// says when to look again.
func (h *Hub) sweepOutbox(now time.Time) (next time.Time) {
	h.outMu.Lock()
	defer h.outMu.Unlock()
	for hub, o := range h.outbox {
		due := o.used.Add(publisherIdle)
		switch {
		case o.uses > 0:
			due = now.Add(publisherIdle)
		case !due.After(now):
			delete(h.outbox, hub)
			stream, next := o.box.Numbers()
			h.keepNumbers(o.channel, stream, next)
			continue
		}
		if next.IsZero() || due.Before(next) {
			next = due
		}
	}
	return next
}
