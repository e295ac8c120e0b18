package fanout

import (
	"fmt"

	"github.com/fanoutgo/fanout/internal/batch"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/publishing"
)

// initPublishing prepares what package publishing needs of the hub. The adapter
// is added when the hub has one.
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
		return out // somebody was faster
	}
	o := publishing.Options{Name: r.channel, Invalid: r.invalid()}
	if r.kept != nil {
		o.Keep = &r.kept.keep
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
	o.room.uses++
	o.room.mu.Unlock()
}

func (o owner) Release(n int) { o.room.hub.releaseAll(o.room, n) }

func (o owner) Wrap(err error) error {
	if o.room.name != "" {
		return &PublishError{Room: o.room.name, Err: err}
	}
	user, _ := o.room.hub.names.UserOf(o.room.channel) // empty: it is everyone's channel
	return &PublishError{User: user, Err: err}
}

func (o owner) Deliver(e item.Entry) { o.room.deliver(e) }

func (o owner) DeliverFrame(frame []byte) {
	r := o.room
	var b batch.Batch
	if err := b.Open(frame); err != nil {
		return // cannot be: the hub has just encoded it
	}
	r.prepare()
	r.mu.Lock()
	var w wakeups
	if r.kept != nil {
		f := batch.WithoutPlace(&b, len(frame))
		a := r.kept.follower.Fallback(&f)
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

// Unkept has messages pass the history of a room by: members that are in the
// room get them, those that resume do not. It suits hints, such as that
// somebody is typing. In a room without a history it has no effect.
//
// Such a message has no place in the history and no number. So a member that
// misses one is not told, hubs that catch up with the history may deliver it
// before messages that were published earlier, and hubs of a release that does
// not know these messages ignore it. Options.LocalFallback does not deliver it.
func (s Selection) Unkept() Selection {
	s.unkept = true
	return s
}

// passesBy reports whether the messages of a selection are not to go into the
// history that a channel keeps.
func (s Selection) passesBy(out *publishing.Channel) bool { return s.unkept && out.Keeps() }

// checkSize refuses data that is too long for a message.
func (h *Hub) checkSize(data []byte) error {
	if limit := h.opts.MaxMessage; len(data) > limit {
		return fmt.Errorf("%w: %d bytes, at most %d are allowed (Options.MaxMessage)", ErrTooLarge, len(data), limit)
	}
	return nil
}
