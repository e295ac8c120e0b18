package migrate

import (
	"context"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/migrate/internal/flip"
	"github.com/fanoutgo/fanout/adapter/migrate/internal/lane"
	"github.com/fanoutgo/fanout/internal/backoff"
)

// A plainReceiver gets what one of the backends brings.
type plainReceiver struct {
	a   *Adapter
	old bool
}

// A historyReceiver is a plainReceiver for a hub that has histories.
type historyReceiver struct{ plainReceiver }

func (r plainReceiver) Receive(channel string, frame []byte) {
	if channel == r.a.control {
		r.a.hear(frame, r.old)
		return
	}
	if isMarker(frame) {
		if r.old {
			r.a.mark(channel)
		}
		return
	}
	if r.old && channel == r.a.everyone {
		r.a.hearHello(frame)
	}
	r.a.take(channel, r.old, lane.Call{Kind: lane.Receive, Frame: adapter.KeptFrame{Frame: frame}})
}

func (r plainReceiver) Interrupted(channel string) { r.notice(channel, lane.Interrupted) }

func (r plainReceiver) Restored(channel string) { r.notice(channel, lane.Restored) }

func (r plainReceiver) notice(channel string, k lane.Kind) {
	if channel != r.a.control {
		r.a.take(channel, r.old, lane.Call{Kind: k})
		return
	}
	if !r.old { // nobody listens to a backend that is down
		r.a.update(func(time.Time) { r.a.deafNew = k != lane.Restored })
		r.a.wake()
	}
}

func (r historyReceiver) ReceiveKept(channel string, f adapter.KeptFrame) {
	if channel == r.a.control {
		r.a.heardEntry()
		return
	}
	if isFiller(f.Frame) {
		return
	}
	r.a.take(channel, r.old, lane.Call{Kind: lane.ReceiveKept, Frame: f})
}

func (r historyReceiver) Moving(channel string) { r.notice(channel, lane.Moving) }

// lookup returns the hub's channel of a name; nil if it is not subscribed.
func (a *Adapter) lookup(name string) *channel {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.channels[name]
}

// take passes on what a backend brings, as the channel's lane says.
func (a *Adapter) take(name string, old bool, call lane.Call) {
	c := a.lookup(name)
	if c == nil {
		return
	}
	a.tellLane(c, func(l *lane.Lane, calls []lane.Call) ([]lane.Call, lane.Task) {
		if old {
			return l.FromOld(call, calls)
		}
		return l.FromNew(call, calls)
	})
}

// tellLane passes an event to a lane, makes the calls that the lane returns,
// and begins the task that it asks for.
func (a *Adapter) tellLane(c *channel, f func(*lane.Lane, []lane.Call) ([]lane.Call, lane.Task)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.down()
	var task lane.Task
	c.calls, task = f(&c.lane, c.calls[:0])
	if is := c.down(); is != was {
		a.addDown(is - was)
		a.wake()
	}
	a.callLocked(c)
	switch task {
	case lane.Drain:
		a.start(func() { a.drain(c) })
	case lane.Sort:
		a.start(func() { a.sort(c) })
	}
}

// down returns 1 if the channel is interrupted at the new backend and the old
// one still counts, otherwise 0.
func (c *channel) down() int {
	if c.lane.State().OldCounts() && c.lane.NewDown() {
		return 1
	}
	return 0
}

// callLocked makes the calls that a lane has decided. The lock of the channel
// is held.
func (a *Adapter) callLocked(c *channel) {
	for i := range c.calls {
		call := &c.calls[i]
		switch {
		case c.gone:
		case call.Kind == lane.ReceiveKept:
			a.history.ReceiveKept(c.name, call.Frame)
		case call.Kind == lane.Receive:
			a.receiver.Receive(c.name, call.Frame.Frame)
		case call.Kind == lane.Interrupted:
			a.receiver.Interrupted(c.name)
		case call.Kind == lane.Moving:
			a.history.Moving(c.name)
		case call.Kind == lane.Restored:
			a.receiver.Restored(c.name)
		}
	}
	clear(c.calls)
	if c.calls = c.calls[:0]; cap(c.calls) > 16 {
		c.calls = nil
	}
}

// mark takes a marker of the old backend.
func (a *Adapter) mark(name string) {
	if c := a.lookup(name); c != nil {
		a.tellLane(c, (*lane.Lane).Marked)
	}
}

// drainIn bounds the wait for what the old backend may still bring. After that
// the order of what it brings is not known.
const drainIn = 5 * time.Second

// drain finds out when everything that the old backend has for a channel has
// arrived.
func (a *Adapter) drain(c *channel) {
	ctx, cancel := context.WithTimeout(a.life, drainIn)
	defer cancel()
	head, err := a.oldHead(ctx, c.name)
	a.tellLane(c, func(l *lane.Lane, calls []lane.Call) ([]lane.Call, lane.Task) {
		if err != nil {
			return l.NoHead(calls)
		}
		return l.Head(head, calls)
	})
	for pause := (backoff.Backoff{}); ; {
		if c.over() || ctx.Err() != nil {
			break
		}
		_, err := a.from.Publish(ctx, c.name, a.marker())
		if err == nil && a.drained(ctx, c) {
			return
		}
		pause.Wait(ctx)
	}
	if a.life.Err() == nil {
		a.tellLane(c, (*lane.Lane).Drained)
	}
}

// markerIn is how long a marker may take until another one is sent.
const markerIn = time.Second

// drained waits until a channel no longer has to wait for the old backend.
func (a *Adapter) drained(ctx context.Context, c *channel) bool {
	ctx, cancel := context.WithTimeout(ctx, markerIn)
	defer cancel()
	for wait := time.Millisecond; ctx.Err() == nil; wait = min(2*wait, 50*time.Millisecond) {
		if c.over() {
			return true
		}
		backoff.Sleep(ctx, wait)
	}
	return false
}

// flipChannels tells all channels that the hubs have flipped.
func (a *Adapter) flipChannels() {
	a.mu.RLock()
	channels := make([]*channel, 0, len(a.channels))
	for _, c := range a.channels {
		channels = append(channels, c)
	}
	a.mu.RUnlock()
	for _, c := range channels {
		a.tellLane(c, (*lane.Lane).Flip)
	}
}

// hearHello notes which hubs are heard at the old backend.
func (a *Adapter) hearHello(frame []byte) {
	hub, ok := hubOf(frame)
	if !ok || a.flipped.Load() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.phase == flip.Both {
		a.node.Hello(hub, time.Now())
	}
}
