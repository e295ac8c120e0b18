package memory

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

// ErrCut is wrapped by the errors of calls that fail because a link is cut.
var ErrCut = errors.New("link cut")

// A link says what an adapter's connections let through.
type link uint8

const (
	up         link = iota
	cut             // nothing
	cutInbound      // what the node sends, and nothing that comes back
	cutFrames       // everything but frames: the subscriber's connection is broken
)

// Cut breaks the adapter's link in both directions until Heal. The receiver's
// Interrupted is called for each subscribed channel, after the frames that were
// queued before. From then on no frame reaches the receiver, Publish fails at
// once with an error that wraps adapter.ErrUnsent and [ErrCut], and Subscribe
// waits.
//
// A link that is already cut in another way is then cut in this way;
// Interrupted is not called again.
func (a *Adapter) Cut() { a.setLink(cut) }

// CutInbound breaks the link like Cut, but only in the direction to the
// adapter: a frame that it publishes still reaches the others, and Publish
// returns an error that does not wrap adapter.ErrUnsent, since the reply is
// lost.
func (a *Adapter) CutInbound() { a.setLink(cutInbound) }

// CutSubscriber breaks only the connection on which frames arrive: Publish
// continues to work, and this adapter is not counted as a receiver.
func (a *Adapter) CutSubscriber() { a.setLink(cutFrames) }

// Heal repairs the link. Everything that was subscribed is subscribed again at
// once, and the receiver's Restored is called before any later frame. Healing a
// link that is not cut does nothing.
func (a *Adapter) Heal() { a.setLink(up) }

// Cut cuts the links of all adapters, also of new ones, as [Adapter.Cut] does:
// the server is down.
func (b *Bus) Cut() { b.setLinks(cut) }

// Heal repairs the links of all adapters.
func (b *Bus) Heal() { b.setLinks(up) }

func (b *Bus) setLinks(l link) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.link = l
	for a := range b.adapters {
		a.setLinkLocked(l)
	}
}

func (a *Adapter) setLink(l link) {
	a.bus.mu.Lock()
	defer a.bus.mu.Unlock()
	a.setLinkLocked(l)
}

func (a *Adapter) setLinkLocked(l link) {
	was := a.link
	a.link = l
	switch {
	case was == up && l != up:
		a.inbox.loseLate()
		a.tellLocked(interrupted)
	case was != up && l == up:
		a.tellLocked(restored)
		close(a.healed)
		a.healed = make(chan struct{})
	}
}

// Move ends the adapter's subscriptions as a server does whose channels move to
// another server in an orderly way, and restores them: the receiver's Moving is
// called (Interrupted, if it is no [adapter.HistoryReceiver]), then Restored.
// No frame is lost.
func (a *Adapter) Move() {
	a.bus.mu.Lock()
	defer a.bus.mu.Unlock()
	if a.link == up {
		a.tellLocked(moving)
		a.tellLocked(restored)
	}
}

// Failover replaces the server by another one, which lacks the latest frames of
// each history: as many as lost. This begins a new epoch. Whole says whether
// the new server is sure that nothing is lost, as it is when a slot has moved.
// Links are not touched.
func (b *Bus) Failover(lost int, whole bool) { b.history.Lose(lost, whole, time.Now()) }

// Flush deletes all histories, as FLUSHALL does at a server.
func (b *Bus) Flush() { b.history.Clear() }

// A Reader is called before a history is read. It may wait until ctx ends. If
// it returns an error, reading fails with it.
type Reader func(ctx context.Context, channel string, q adapter.Query) error

// InterceptReads makes the bus call f for each reading of a history from now
// on; nil removes f.
func (b *Bus) InterceptReads(f Reader) {
	if f == nil {
		b.reader.Store(nil)
		return
	}
	b.reader.Store(&f)
}

// tellLocked queues a notice for every channel.
func (a *Adapter) tellLocked(k kind) {
	for _, s := range a.subscriptions {
		a.inbox.put(event{kind: k, sub: s})
	}
}

// A Frame is a frame that is being published, as an [Interceptor] sees it.
type Frame struct {
	From    *Adapter // the publisher
	Channel string
	Data    []byte // must not be modified
}

// A Fate says what happens to a frame. With the zero Fate it arrives.
type Fate struct {
	// Drop loses the frame as a server may lose one: no subscriber gets it, and
	// Publish returns 0 and no error. A frame of Append is in the history
	// nevertheless. (The contract says that a subscribed adapter publishes such a
	// frame again; this one does not, since that would undo the fault.)
	Drop bool

	// Refuse keeps the frame from being accepted: it is not added to a history
	// either. Set Err as well.
	Refuse bool

	// Miss lists adapters that do not get the frame, without being told.
	// Publish does not count them as receivers.
	Miss []*Adapter

	// Repeat is the number of additional times that the frame arrives,
	// immediately after the first. Publish counts it once.
	Repeat int

	// Delay is how much later the frame arrives. Later frames wait for it, so
	// the order is kept. A frame that is delayed when the link is cut is lost.
	Delay time.Duration

	// Err is the error that Publish returns, whether or not the frame arrives.
	// Without Drop and without adapter.ErrUnsent it is ambiguous, like the
	// error of a connection that breaks before the reply arrives.
	Err error
}

// An Interceptor decides the fate of each frame. Publish calls it before the
// frame has a place in the order, under no lock, and concurrently if there are
// several publishers. It may wait, which delays Publish. It should return when
// ctx ends, which it does with the publisher's context and on Close.
type Interceptor func(ctx context.Context, f Frame) Fate

// Intercept makes f decide the fate of every frame that is published from now
// on. A later call replaces f; nil removes it.
func (b *Bus) Intercept(f Interceptor) {
	if f == nil {
		b.interceptor.Store(nil)
		return
	}
	b.interceptor.Store(&f)
}

// DropNext loses the next n frames on the bus, as [Fate.Drop] does. It does not
// count frames that an interceptor drops; the others are lost whatever the
// interceptor says. What hubs tell each other, such as the probes by which they
// find out which of them are there, is neither lost nor counted. It replaces
// the number of an earlier call; 0 ends it.
//
// No backend may lose frames like this without telling the hub, so hubs notice
// it late: with the next frame of the same publisher. In a room without a
// history they do not notice that the first frames of a publisher are missing.
func (b *Bus) DropNext(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop = n
}

// intercept calls f as a call that Close waits for.
func (a *Adapter) intercept(ctx context.Context, f Interceptor, frame Frame) (fate Fate, err error) {
	err = a.call(ctx, func(ctx context.Context) { fate = f(ctx, frame) })
	return fate, err
}

// call calls a function of the user. Close ends its context and waits for it.
func (a *Adapter) call(ctx context.Context, f func(context.Context)) error {
	a.bus.mu.Lock()
	if a.closed {
		a.bus.mu.Unlock()
		return adapter.Unsent(adapter.ErrClosed)
	}
	a.close.Enter()
	a.bus.mu.Unlock()
	defer a.close.Leave()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(a.life, cancel)()
	f(ctx)
	return nil
}

// handOutLocked puts a frame in the inboxes of all subscribers that can be
// reached, and returns their number.
func (b *Bus) handOutLocked(channel string, frame []byte, fate Fate, at adapter.Position) int {
	e := event{frame: frame, at: at}
	if fate.Delay > 0 {
		e.due = time.Now().Add(fate.Delay)
	}
	n := 0
	for _, s := range b.channels[channel] {
		if s.adapter.link != up || slices.Contains(fate.Miss, s.adapter) {
			continue
		}
		e.sub = s
		for range 1 + fate.Repeat {
			s.adapter.inbox.put(e)
		}
		n++
	}
	return n
}
