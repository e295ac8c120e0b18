package memory

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

// ErrCut is wrapped by what fails because a link is cut.
var ErrCut = errors.New("link cut")

// A link is what an adapter's connections let through.
type link uint8

const (
	up         link = iota
	cut             // nothing
	cutInbound      // what the node sends, and nothing that comes back
	cutFrames       // everything but frames: the subscriber's connection is broken
)

// Cut breaks the adapter's link in both directions until Heal. The receiver is
// told Interrupted for each channel that is subscribed, after the frames that
// were there before. From then on no frame reaches it; Publish fails at once
// with an error that wraps adapter.ErrUnsent and [ErrCut]; Subscribe waits.
//
// A cut of a link that is cut in another way changes the way and tells nothing
// twice.
func (a *Adapter) Cut() { a.setLink(cut) }

// CutInbound breaks the link like Cut, but only for what comes back: a frame
// that is published still reaches the others, and Publish returns an error
// that does not wrap adapter.ErrUnsent, for its answer is lost.
func (a *Adapter) CutInbound() { a.setLink(cutInbound) }

// CutSubscriber breaks only the connection on which frames come: Publish goes
// on as before, and does not count this adapter.
func (a *Adapter) CutSubscriber() { a.setLink(cutFrames) }

// Heal mends the link. All that was subscribed is subscribed again at once, and
// the receiver is told Restored for it, before any later frame. Healing what is
// whole does nothing.
func (a *Adapter) Heal() { a.setLink(up) }

// Cut does to all adapters, and to new ones, what [Adapter.Cut] does to one:
// the server is down.
func (b *Bus) Cut() { b.setLinks(cut) }

// Heal mends the links of all adapters.
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

// Move ends the adapter's subscriptions as a server does whose channels move
// elsewhere in good order, and makes them anew: its receiver is told Moving, if
// it is a adapter.HistoryReceiver, or Interrupted, and Restored. No frame is lost.
func (a *Adapter) Move() {
	a.bus.mu.Lock()
	defer a.bus.mu.Unlock()
	if a.link == up {
		a.tellLocked(moving)
		a.tellLocked(restored)
	}
}

// Failover replaces the server by another one. Of each history that one lacks
// the latest frames, as many as lost; so a new epoch begins. Whole says whether
// it knows that nothing is lost, as it does when a slot has moved. Links are not
// touched.
func (b *Bus) Failover(lost int, whole bool) { b.history.Lose(lost, whole) }

// Flush empties the server: there is no history any more.
func (b *Bus) Flush() { b.history.Clear() }

// A Reader is called before a history is read. It may wait, until ctx ends; an
// error that it returns is that of the reading.
type Reader func(ctx context.Context, channel string, q adapter.Query) error

// InterceptReads has f called for each reading of a history from now on; nil
// ends it.
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

// A Frame is a frame on its way, as an [Interceptor] sees it.
type Frame struct {
	From    *Adapter // who publishes it
	Channel string
	Data    []byte // to be read, not to be modified
}

// A Fate says what becomes of a frame. The zero Fate is that it arrives.
type Fate struct {
	// Drop loses the frame as a server loses one: nobody gets it, and Publish
	// returns 0 and no error. A frame of Append is in the history all the same. (The adapter does not mend that, though the
	// contract tells it to; it would undo the fault.)
	Drop bool

	// Refuse keeps the server from taking the frame: it does not come into a
	// history either. Set Err as well.
	Refuse bool

	// Miss lists adapters that do not get the frame, and are not told. They
	// are not among the receivers that Publish counts.
	Miss []*Adapter

	// Repeat is how many times more the frame arrives, each time at once after
	// the one before. It is counted once.
	Repeat int

	// Delay is how much later the frame arrives. Later frames wait behind it,
	// so the order stays. What is delayed when a link is cut is lost.
	Delay time.Duration

	// Err is what Publish returns, whether the frame arrives or not: without
	// Drop and without adapter.ErrUnsent it is the ambiguous error of a
	// connection that broke before the answer came.
	Err error
}

// An Interceptor decides the fate of each frame. It is called by Publish before
// the frame has a place in the order, with no lock held, and concurrently if
// there are several publishers. It may wait, which makes Publish slow; it should
// return when ctx ends, which it does with the publisher's and on Close.
type Interceptor func(ctx context.Context, f Frame) Fate

// Intercept has f decide about every frame that is published from now on. A
// later call replaces f; nil ends it.
func (b *Bus) Intercept(f Interceptor) {
	if f == nil {
		b.interceptor.Store(nil)
		return
	}
	b.interceptor.Store(&f)
}

// DropNext loses the next n frames on the bus, as [Fate.Drop] does: those that
// an interceptor drops are not counted, others are lost whatever it says. It
// replaces what an earlier call left; 0 ends it.
func (b *Bus) DropNext(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop = n
}

// intercept asks f, as a call that Close waits for.
func (a *Adapter) intercept(ctx context.Context, f Interceptor, frame Frame) (fate Fate, err error) {
	err = a.call(ctx, func(ctx context.Context) { fate = f(ctx, frame) })
	return fate, err
}

// call calls a function of the user's, which Close ends and waits for.
func (a *Adapter) call(ctx context.Context, f func(context.Context)) error {
	a.bus.mu.Lock()
	if a.closed {
		a.bus.mu.Unlock()
		return adapter.Unsent(adapter.ErrClosed)
	}
	a.calls.Add(1)
	a.bus.mu.Unlock()
	defer a.calls.Done()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(a.life, cancel)()
	f(ctx)
	return nil
}

// handOutLocked puts a frame in the inboxes of all who are subscribed and can
// be reached, and returns how many they are.
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
