package migrate

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/migrate/internal/lane"
	"github.com/fanoutgo/fanout/internal/backoff"
)

const (
	// settleAfter is how long after the flip hubs begin. A backend that has no
	// order among publishers may bring a marker before a frame that was published
	// earlier, and may need some seconds to notice that it has lost one. Until
	// then it interrupts the channel, and members are told.
	settleAfter = 10 * time.Second
	// settlers is how many channels a hub settles at a time.
	settlers = 16
	// carryIn bounds the copying of a history that nobody waits for. What was
	// copied remains, and the next attempt continues from there.
	carryIn = 30 * time.Second
)

// settleAll has all channels of the hub do without the old backend some seconds
// after the flip, whether something comes for them or not. It returns when that
// is so. Hubs begin with different channels: the marker of one serves all.
func (a *Adapter) settleAll() {
	if !backoff.Sleep(a.life, settleAfter) {
		return
	}
	a.mu.RLock()
	left := make([]*channel, 0, len(a.channels))
	for _, c := range a.channels {
		if c.onOld {
			left = append(left, c)
		}
	}
	a.mu.RUnlock()
	rand.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })
	for pause := (backoff.Backoff{Max: refusedPause}); ; {
		left = a.settleSome(left)
		if len(left) == 0 || !pause.Wait(a.life) {
			return
		}
	}
}

// settleSome tries to settle channels, and returns those that are not.
func (a *Adapter) settleSome(channels []*channel) (left []*channel) {
	var all sync.WaitGroup
	turns := make(chan struct{}, settlers)
	done := make([]bool, len(channels))
	for i, c := range channels {
		turns <- struct{}{}
		all.Go(func() {
			done[i] = a.settle(c)
			<-turns
		})
	}
	all.Wait()
	for i, c := range channels {
		if !done[i] {
			left = append(left, c)
		}
	}
	return slices.Clip(left)
}

// settle finds out that all has come that the old backend has for a channel, and
// copies its history. It reports whether nothing is left to do.
func (a *Adapter) settle(c *channel) bool {
	ctx, cancel := context.WithTimeout(a.life, drainIn)
	defer cancel()
	head, ok := a.oldHead(ctx, c.name)
	if !ok {
		return c.over() && a.carry(c)
	}
	a.tellLane(c, func(l *lane.Lane, calls []lane.Call) ([]lane.Call, lane.Task) {
		return l.Head(head, calls)
	})
	if !c.over() {
		if _, err := a.from.Publish(ctx, c.name, a.marker()); err != nil || !a.drained(ctx, c) {
			return false
		}
	}
	return a.carry(c)
}

// carry copies the history of a channel whose retention is known. That there is
// none is noted as well, so that a hub that comes later does not ask the old
// backend.
func (a *Adapter) carry(c *channel) bool {
	keep := c.keep.Load()
	if keep == nil || c.isGone() {
		return true
	}
	ctx, cancel := context.WithTimeout(a.life, carryIn)
	defer cancel()
	one, err := a.copyOf(ctx, c.name, *keep)
	if err != nil {
		return errors.Is(err, adapter.ErrRefused) // the next Append says so
	}
	if one.head.IsZero() {
		a.writeMark(ctx, c.name, one, markComplete)
	}
	return true
}

// over reports whether the channel has no longer to wait for the old backend.
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
