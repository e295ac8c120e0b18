package nats

import (
	"context"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/adapter/nats/internal/numbers"
)

// Hubs that append to a channel at the same time take turns. Each names the
// position after the last record that it knows, and the stream takes the first.
//
//	lost a race ──> awaitWinner ──> try again
//	lost the third ──> claim ──> others yield until it has appended

// A hub claims a channel after each claimEvery races that it has lost in one
// Append. It yields to the claims of others until it has lost yieldFor races.
const (
	claimEvery = 3
	yieldFor   = 2
)

// mostSpread and mostPause bound the exponents of pauses in milliseconds:
// awaitWinner pauses for up to 8 ms, and then waits for a record for up to
// 64 ms.
const (
	mostSpread = 3
	mostPause  = 6
)

// awaitWinner waits for a moment after another hub was faster to append after
// number seq. It reports whether the stream has to be asked what it appended.
//
// A hub that is subscribed to the channel soon receives that record, and can
// try again in half the time that asking the stream would take. Otherwise a hub
// that appends without a pause would win each time.
func (a *Adapter) awaitWinner(ctx context.Context, p int, channel string, seq uint64, races int) (fresh bool, err error) {
	// The pause keeps many hubs from trying at once.
	if err := pause(ctx, min(races-1, mostSpread)); err != nil {
		return false, err
	}
	if races%claimEvery == 0 || !a.receives(p) {
		return true, nil
	}
	received := a.heads.await(ctx, channel, seq, time.Millisecond<<min(races, mostPause))
	if !received && ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	return !received, nil
}

// receives reports whether this hub is subscribed to a partition.
func (a *Adapter) receives(p int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.partitions[p].sub != nil
}

// claim asks other hubs to wait with what they append to a channel, until this
// hub has appended: one that is closer to the stream's leader, or faster, would
// win each time. With a wait of 0 it tells them that this hub is done.
func (a *Adapter) claim(channel string, wait time.Duration) {
	a.out.put(&item{kind: kindClaim, claim: claim{id: a.id, wait: wait, channel: channel}})
}

// claimTime returns how long others have to wait for a hub that the stream
// answers in a certain time: five times that, for the claim to arrive, to ask
// for the last record, and to append.
func claimTime(answer time.Duration) time.Duration {
	return min(max(5*answer, minClaim), maxClaim)
}

// claims are the channels that other hubs have claimed. The zero value has
// none. Any goroutine may call the methods.
type claims struct {
	mu    sync.Mutex
	stand map[string]*standing // by channel
}

// A standing claim ends when the claimant has appended, or at a time.
type standing struct {
	id    numbers.ID
	until time.Time
	done  chan struct{} // closed when the claimant has appended
}

// maxClaims bounds the claims that are remembered. With so many at a time, this
// hub does without the others.
const maxClaims = 1000

// note notes a claim, or that a claimant has appended. Of several claims of a
// channel, the one that ends last stands for all.
func (c *claims) note(m claim, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, until := c.stand[m.channel], now.Add(m.wait)
	switch {
	case m.wait == 0 && s != nil && s.id == m.id:
		close(s.done)
		delete(c.stand, m.channel)
	case m.wait == 0 || s != nil && s.until.After(until):
	case s != nil:
		s.id, s.until = m.id, until
	case c.room(now):
		c.stand[m.channel] = &standing{id: m.id, until: until, done: make(chan struct{})}
	}
}

// room makes room for a claim. It reports false if there is none. c.mu is held.
func (c *claims) room(now time.Time) bool {
	if c.stand == nil {
		c.stand = make(map[string]*standing)
	}
	if len(c.stand) < maxClaims {
		return true
	}
	for channel, s := range c.stand {
		if !s.until.After(now) {
			delete(c.stand, channel)
		}
	}
	return len(c.stand) < maxClaims
}

// yield waits if another hub has claimed a channel: until that hub has
// appended, the claim ends or ctx does, and for maxClaim at most.
func (c *claims) yield(ctx context.Context, channel string) {
	for end := time.Now().Add(maxClaim); ctx.Err() == nil; {
		c.mu.Lock()
		s, now := c.stand[channel], time.Now()
		if s != nil && !s.until.After(now) {
			delete(c.stand, channel)
			s = nil
		}
		var wait time.Duration
		if s != nil {
			wait = min(s.until.Sub(now), end.Sub(now)) // another claim may move until
		}
		c.mu.Unlock()
		if wait <= 0 || waitFor(ctx, s.done, wait) {
			return
		}
	}
}
