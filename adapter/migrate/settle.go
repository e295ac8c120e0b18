package migrate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/migrate/internal/flip"
	"github.com/fanoutgo/fanout/adapter/migrate/internal/lane"
	"github.com/fanoutgo/fanout/internal/backoff"
)

// A Settlement says whether a hub still needs the old backend.
type Settlement uint8

const (
	// Unsettled: the hubs have not flipped, or less than ten seconds ago.
	Unsettled Settlement = iota
	// Settling: rooms are drained and their histories copied.
	Settling
	// Settled: no room that the hub had at the flip needs the old backend. When
	// all hubs are Settled, the second deploy may begin. A hub that was started
	// after the flip does not know the rooms of the hub that it replaces.
	Settled
	// GaveUp: for ten minutes no room could be drained or copied. The hub tries
	// again once a minute, and is Settled if it succeeds. A room's history is also
	// copied when somebody uses the room.
	GaveUp
)

func (s Settlement) String() string {
	return [...]string{"unsettled", "settling", "settled", "gave up"}[s]
}

const (
	// settleAfter is how long after the flip hubs begin. A backend that has no
	// order among publishers may bring a marker before a frame that was published
	// earlier, and may need some seconds to notice that it has lost one. Until
	// then it interrupts the channel, and members are told.
	settleAfter = 10 * time.Second
	// settleFor is how long a hub tries without progress.
	settleFor = 10 * time.Minute
	// gaveUpPause is how often it tries after that.
	gaveUpPause = time.Minute
	// settlers is how many channels a hub settles at a time.
	settlers = 16
	// carryIn bounds the copying of a history that nobody waits for. The next
	// attempt continues where it ended.
	carryIn = 30 * time.Second
	// maxGone is how many rooms are remembered whose members have left since the
	// flip, so that their histories are copied as well.
	maxGone = 10_000
)

// A settling is the progress of a hub's Settlement. The lock of the adapter
// guards it.
type settling struct {
	state    Settlement
	left     int
	progress time.Time // when the last channel was settled
	err      error     // of the last one that was not
	gone     []*channel
}

// keepGoneLocked remembers a channel that ends between the flip and the time
// when the hub begins to settle.
func (a *Adapter) keepGoneLocked(c *channel) {
	s := &a.settling
	if a.phase == flip.Flipped && s.state == Unsettled && c.onOld && c.keep.Load() != nil && len(s.gone) < maxGone {
		s.gone = append(s.gone, c)
	}
}

// whyUnsettledLocked says what the hub waits for after the flip; empty:
// nothing.
func (a *Adapter) whyUnsettledLocked() string {
	s := &a.settling
	switch {
	case s.state == Unsettled:
		return "the hubs have flipped, and will copy the histories of rooms that are quiet"
	case s.state == Settled:
		return ""
	case s.err != nil:
		return fmt.Sprintf("the old backend is needed for %d rooms or other channels (%v)", s.left, s.err)
	}
	return fmt.Sprintf("the old backend is needed for %d rooms or other channels", s.left)
}

// settleAll makes all channels of the hub independent of the old backend some
// seconds after the flip, also those that receive nothing. It returns when no
// channel needs the old backend, or when the hub closes. If it makes no
// progress for settleFor, it says so and tries less often. Hubs begin with
// different channels: the marker of one serves all.
func (a *Adapter) settleAll() {
	if !backoff.Sleep(a.life, settleAfter) {
		return
	}
	began, left := time.Now(), a.beginSettling()
	all := len(left)
	for pause := (backoff.Backoff{Max: refusedPause}); ; {
		left = a.settleSome(left)
		switch {
		case a.life.Err() != nil:
			return
		case len(left) == 0:
			a.endSettling(Settled)
			a.log.Info("migrate: the hub no longer needs the old backend",
				"migration", a.name, "channels", all, "took", time.Since(began).Round(time.Millisecond))
			return
		case a.stuck():
			err := a.endSettling(GaveUp)
			a.log.Warn("migrate: the hub still needs the old backend, has made no progress for ten minutes, and from now on tries once a minute: histories are copied when rooms are used",
				"migration", a.name, "channels", all, "left", len(left), "error", err)
			pause = backoff.Backoff{First: gaveUpPause, Max: gaveUpPause}
		}
		pause.Wait(a.life)
	}
}

// beginSettling returns the channels that are to be settled.
func (a *Adapter) beginSettling() (left []*channel) {
	a.mu.Lock()
	defer a.mu.Unlock()
	left = a.settling.gone
	for _, c := range a.channels {
		if c.onOld {
			left = append(left, c)
		}
	}
	rand.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })
	a.settling = settling{state: Settling, left: len(left), progress: time.Now()}
	return left
}

func (a *Adapter) endSettling(state Settlement) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settling.state, a.settling.progress = state, time.Now()
	return a.settling.err
}

// stuck reports whether no channel has been settled for settleFor.
func (a *Adapter) stuck() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return time.Since(a.settling.progress) >= settleFor
}

// noteSettled notes how it went with a channel.
func (a *Adapter) noteSettled(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.settling.err = err
		return
	}
	a.settling.left--
	a.settling.progress = time.Now()
}

// settleSome tries to settle channels, and returns those that are not.
func (a *Adapter) settleSome(channels []*channel) (left []*channel) {
	var all sync.WaitGroup
	turns := make(chan struct{}, settlers)
	errs := make([]error, len(channels))
	begun := 0
	for i, c := range channels {
		turns <- struct{}{}
		if a.life.Err() != nil || a.stuck() {
			break
		}
		begun++
		all.Go(func() {
			errs[i] = a.settle(c)
			a.noteSettled(errs[i])
			<-turns
		})
	}
	all.Wait()
	for i, c := range channels {
		if i >= begun || errs[i] != nil {
			left = append(left, c)
		}
	}
	return left
}

// errUndrained means that a marker did not come back.
var errUndrained = errors.New("the old backend does not bring what is published to it")

// settle waits until everything that the old backend has for a channel has
// arrived, and copies its history. It returns nil if nothing is left to do.
func (a *Adapter) settle(c *channel) error {
	if c.isGone() {
		return a.carry(c)
	}
	ctx, cancel := context.WithTimeout(a.life, drainIn)
	defer cancel()
	head, err := a.oldHead(ctx, c.name)
	if err != nil {
		if c.over() {
			err = a.carry(c)
		}
		return err
	}
	a.tellLane(c, func(l *lane.Lane, calls []lane.Call) ([]lane.Call, lane.Task) {
		return l.Head(head, calls)
	})
	if !c.over() {
		if _, err := a.from.Publish(ctx, c.name, a.marker()); err != nil {
			return err
		}
		if !a.drained(ctx, c) {
			return errUndrained
		}
	}
	return a.carry(c)
}

// carry copies the history of a channel whose retention is known, and marks the
// copy. That there is none is marked as well, so that a hub that comes later
// does not ask the old backend.
func (a *Adapter) carry(c *channel) error {
	keep := c.keep.Load()
	if keep == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(a.life, carryIn)
	defer cancel()
	one, err := a.copyOf(ctx, c.name, *keep)
	if err != nil || one.marked {
		return err
	}
	return a.writeMark(ctx, c.name, one, markComplete)
}

// over reports whether the channel no longer has to wait for the old backend.
func (c *channel) over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone || !c.lane.State().OldCounts()
}

func (c *channel) isGone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone
}

// noteKeep notes what is kept of a channel that is subscribed.
func (a *Adapter) noteKeep(name string, keep adapter.Retention) {
	c := a.lookup(name)
	if c == nil {
		return
	}
	if was := c.keep.Load(); was == nil || *was != keep {
		now := keep // a copy for this case alone
		c.keep.Store(&now)
	}
}
