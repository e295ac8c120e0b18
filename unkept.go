package fanout

import (
	"context"
	"time"
	"unique"

	"github.com/fanoutgo/fanout/internal/batch"
	"github.com/fanoutgo/fanout/internal/outbox"
	"github.com/fanoutgo/fanout/internal/wire"
)

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
func (s Selection) passesBy(o *outbound) bool { return s.unkept && o.keeps() }

// publishUnkept sends a message that goes into no history, and waits until the
// backend has taken it.
func (o *outbound) publishUnkept(ctx context.Context, m *wire.Message) error {
	ctx, release := o.hub.bound(ctx)
	defer release()
	_, err := o.Notify(ctx, o.unkeptFrame(m))
	if err == nil {
		o.hub.stats.published.Add(1)
		o.hub.stats.frames.Add(1)
	}
	return err
}

// publishUnkeptAsync is publishUnkept without waiting. The caller holds the
// channel; that is released when a is told.
func (o *outbound) publishUnkeptAsync(m *wire.Message, a ack) {
	if err := o.check(context.Background()); err != nil {
		o.hub.tell([]ack{a}, err)
		o.unhold(1)
		return
	}
	f := outbox.NewNotice[waiters](o.unkeptFrame(m))
	f.Waiters.acks = append(f.Waiters.one[:0], a)
	f.Expire(time.Now().Add(o.hub.opts.PublishTimeout))
	o.mu.Lock()
	turn := o.box.Begin()
	if !turn {
		o.box.Queue(f)
	}
	o.mu.Unlock()
	if turn {
		o.start(f)
	}
}

// unkeptFrame returns the notice that carries a message. The message has an ID,
// by which members recognise it if it is sent again.
func (o *outbound) unkeptFrame(m *wire.Message) []byte {
	h := o.hub
	if m.ID == 0 {
		m.ID = h.lastCopyID.Add(1)
	}
	var box outbox.Outbox[struct{}]
	f := outbox.NewFrame[struct{}](m.Size())
	f.Add(m)
	now := time.Now()
	box.Number(f, h.num, h.newStream, now)
	return wire.AppendUnkept(nil, h.num, uint64(now.UnixMilli()), f.Bytes())
}

// receiveUnkept delivers a message that is in no history.
func (rs *roomState) receiveUnkept(frame []byte) {
	h := rs.hub
	var b batch.Batch
	err := b.Open(frame)
	if err == nil && b.Foreign() {
		err = wire.ErrForeign
	}
	if err != nil {
		h.malformed(rs.channel, err)
		return
	}
	h.hellos.Heard(b.Head.Hub)
	h.stats.received.Add(uint64(b.Count()))
	var u batch.Unpacker
	b.Unpack(&u, &h.home, 0, unique.Make(hubID(b.Head.Hub)).Value())
	for u.Read() {
		if u.Understood() {
			rs.deliver(u.Entry())
		}
	}
	h.notUnderstood(rs.channel, u.TakeNotUnderstood())
}
