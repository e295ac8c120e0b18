package fanout

import (
	"context"
	"fmt"

	"github.com/fanoutgo/fanout/internal/batch"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/publishing"
	"github.com/fanoutgo/fanout/internal/roomlog"
	"github.com/fanoutgo/fanout/internal/unsent"
	"github.com/fanoutgo/fanout/internal/wire"
)

// initPublishing prepares what package publishing needs from the hub. The
// adapter is added when the hub has one.
func (h *Hub) initPublishing() {
	h.publishing = publishing.Env{
		Hub: h.num, Home: &h.home, Context: h.ctx, WithHealth: h.withHealth,
		Timeout: h.opts.PublishTimeout, Bounds: h.publishes, LocalFallback: h.opts.LocalFallback,
		Publishers: &h.publishers, Go: h.wg.Go, // while a publish is in flight the hub still waits for goroutines
		Numbers: &h.numbers, NewStream: h.newStream, NewCopyID: h.newCopyID,
		Published: &h.stats.published, Frames: &h.stats.frames, Received: &h.stats.received,
	}
	h.inboxes.Init(&h.publishing, h.names.Inbox, func(hub string, err error) error {
		return &PublishError{Hub: hub, Err: err}
	}, h.janitor.wake)
}

func (h *Hub) newStream() uint64 { return h.lastStream.Add(1) }

// newCopyID returns the ID of a message that may come in several copies.
func (h *Hub) newCopyID() uint64 { return h.lastCopyID.Add(1) }

// outgoing returns the room's channel, to be published to. The room is in use.
func (r *room) outgoing() *publishing.Channel {
	if out := r.out.Load(); out != nil {
		return out
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if out := r.out.Load(); out != nil {
		return out // another goroutine was faster
	}
	o := publishing.Options{Name: r.channel, Invalid: r.invalid()}
	if r.kept != nil {
		o.Keep = &r.kept.Keep
	}
	out := new(publishing.Channel)
	out.Init(&r.hub.publishing, owner{r}, o)
	r.out.Store(out)
	return out
}

// An owner is a room as the owner of its channel: it implements
// publishing.Owner.
type owner struct{ room *room }

func (o owner) Hold() {
	o.room.mu.Lock()
	o.room.life.Use()
	o.room.mu.Unlock()
}

func (o owner) Release(n int) { o.room.hub.releaseAll(o.room, n) }

func (o owner) Wrap(err error) error {
	if o.room.name != "" {
		return &PublishError{Room: o.room.name, Err: err}
	}
	user, _ := o.room.hub.names.UserOf(o.room.channel) // empty: it is the channel of everyone
	return &PublishError{User: user, Err: err}
}

func (o owner) Deliver(e item.Entry) { o.room.deliver(e) }

func (o owner) DeliverFrame(frame []byte) {
	r := o.room
	var b batch.Batch
	if err := b.Open(frame); err != nil {
		return // cannot happen: the hub has just encoded it
	}
	r.prepare()
	r.mu.Lock()
	var w wakeups
	if r.kept != nil {
		f := batch.WithoutPlace(&b, len(frame))
		a := r.kept.Follower.Fallback(&f)
		w = r.put(&a, &f)
	} else {
		v := r.in.Accept(&b.Head)
		earlier, gap := r.gaps(&v)
		var u batch.Unpacker
		b.Unpack(&u, &r.hub.home, v.Skip, v.Sender)
		w = r.appendBatch(earlier, gap, &u, 0, 0)
	}
	r.mu.Unlock()
	w.run(r.hub)
}

// passesBy reports whether the messages of a selection are kept out of the
// history of a channel.
func (s Selection) passesBy(out *publishing.Channel) bool { return s.unkept && out.Keeps() }

// A target is a part of a selection, and what to send there.
type target struct {
	out     *publishing.Channel // held; nil: the message is to members of this hub
	message wire.Message
}

// deliver gives a message to members of this hub.
func (t *target) deliver(h *Hub) {
	v := t.message.View()
	h.sendTo(v.To, roomlog.Gap{}, []item.Entry{h.home.Own(h.num, &t.message)})
}

// targets returns the parts of a selection that is not local.
func (s Selection) targets(ctx context.Context, m *wire.Message) ([]target, error) {
	h := s.hub
	switch s.kind {
	case toEveryone:
		if err := s.awaitEveryone(ctx); err != nil {
			return nil, &PublishError{Err: unsent.Mark(err, true)}
		}
		out := h.everyone.outgoing()
		out.Hold()
		return []target{{out, *m}}, nil
	case toMembers:
		return s.hubs(m), nil
	case toUsers:
		return s.acquireUsers(m), nil
	}
	if len(s.names) > 1 {
		m.ID = h.newCopyID()
	}
	return s.acquireAll(s.names, m), nil
}

// awaitEveryone waits until the hub itself receives messages to everyone.
func (s Selection) awaitEveryone(ctx context.Context) error {
	h := s.hub
	if h.own.Succeeded() {
		return nil
	}
	ctx, release := h.bound(ctx)
	defer release()
	return h.explain(ctx, h.awaitOwn(ctx, nil))
}

// acquireAll returns a part for each of some rooms. If the user's Options.Room
// panics for one of them, none is in use.
func (s Selection) acquireAll(rooms []string, m *wire.Message) []target {
	h := s.hub
	targets := make([]target, 0, len(rooms))
	defer func() {
		if len(targets) < len(rooms) {
			for _, t := range targets {
				t.out.Release()
			}
		}
	}()
	for _, room := range rooms {
		targets = append(targets, target{h.acquire(room, h.names.Room(room)).outgoing(), *m})
	}
	return targets
}

// hubs returns a part for each hub that has one of the members.
func (s Selection) hubs(m *wire.Message) (targets []target) {
	byHub := make(map[string]int)
	for _, id := range s.names {
		hub, _ := hubOf(id) // checked before
		i, known := byHub[hub]
		if !known {
			i = len(targets)
			byHub[hub] = i
			t := target{message: *m}
			if hub != s.hub.id {
				t.out = s.hub.inboxes.To(hub)
			}
			targets = append(targets, t)
		}
		targets[i].message.To = append(targets[i].message.To, id)
	}
	return targets
}

// checkSize refuses data that is too long for a message.
func (h *Hub) checkSize(data []byte) error {
	if limit := h.opts.MaxMessage; len(data) > limit {
		return fmt.Errorf("%w: %d bytes, at most %d are allowed (Options.MaxMessage)", ErrTooLarge, len(data), limit)
	}
	return nil
}
