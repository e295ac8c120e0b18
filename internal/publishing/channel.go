package publishing

import (
	"context"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/outbox"
	"github.com/fanoutgo/fanout/internal/wire"
)

// A Channel is a channel that a hub publishes to. Init makes it. Its methods
// may be called concurrently while it is held, without locks. It implements
// notices.Channel, and adapter.Completion for the frame under way.
type Channel struct {
	env     *Env
	owner   Owner
	name    string
	keep    *adapter.Retention
	invalid error
	inbox   bool
	loops   bool // there is no backend: messages are delivered here, at once

	sending *frame // under way with env.Async; belongs to the holder of the turn

	mu  locks.Mutex[locks.Innermost] // guards box, except for what belongs to the holder of the turn
	box outbox.Outbox[waiters]
}

// A frame is messages that travel together, and the publishers that wait for
// them.
type frame = outbox.Frame[waiters]

// Options describe a channel.
type Options struct {
	Name    string
	Keep    *adapter.Retention // of its history; nil: it keeps none
	Invalid error              // why nothing can be published; nil: it can
	Inbox   bool               // it is the inbox of a hub
}

// Init makes c, which is zero, a channel with an owner.
func (c *Channel) Init(env *Env, owner Owner, o Options) {
	c.env, c.owner, c.name = env, owner, o.Name
	c.keep, c.invalid, c.inbox = o.Keep, o.Invalid, o.Inbox
	c.loops = env.Alone && !o.Inbox && o.Keep == nil
	c.box.Restore(env.Numbers.take(o.Name))
}

// Forget stores the channel's numbers for a later Channel of the same name. The
// channel is not held, and is no longer used. Forget may be called under
// locks.
func (c *Channel) Forget() {
	stream, next := c.box.Numbers()
	c.env.Numbers.keep(c.name, stream, next)
}

// Hold keeps the channel from being forgotten until Release. The caller holds
// it already, or its owner never forgets it.
func (c *Channel) Hold() { c.owner.Hold() }

// Release ends a Hold.
func (c *Channel) Release() { c.owner.Release(1) }

// Keeps reports whether what is published goes into a history.
func (c *Channel) Keeps() bool { return c.keep != nil }

// wrap adds to an error the name of what the message was for.
func (c *Channel) wrap(err error) error {
	if err == nil {
		return nil
	}
	return c.owner.Wrap(err)
}

// check returns an error if nothing can be published, or if ctx has ended.
func (c *Channel) check(ctx context.Context) error {
	if ctx.Err() == nil && c.invalid == nil {
		return nil
	}
	return c.refusal(ctx)
}

func (c *Channel) refusal(ctx context.Context) error {
	err := context.Cause(ctx)
	if err == nil {
		err = c.invalid
	}
	return c.owner.Wrap(adapter.Unsent(err))
}

// deliver publishes a message on a hub without a backend.
func (c *Channel) deliver(m *wire.Message) {
	c.env.Published.Add(1)
	c.env.Frames.Add(1)
	c.env.Received.Add(1)
	c.owner.Deliver(c.env.entry(m))
}

// entry returns a message of the hub's own for a log.
func (e *Env) entry(m *wire.Message) item.Entry { return e.Home.Own(e.Hub, m) }

// fallsBack reports whether a message that could not be published is delivered
// to the members of this hub.
func (c *Channel) fallsBack() bool {
	return c.env.LocalFallback && !c.inbox && c.env.Context.Err() == nil
}
