package migrate

import (
	"context"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/adapter"
)

const (
	// claimFor is how long a claim lasts. A hub appends copies only in the first
	// half of it, and claims anew after that.
	claimFor   = 10 * time.Second
	claimPause = 30 * time.Millisecond
)

// claimKeep is longer than a claim lasts: a claim also says that a copy has
// begun.
var claimKeep = adapter.Retention{Messages: 16, Age: markKeep.Age}

// A claim keeps other hubs from copying the history of a channel. It is an
// entry of a history of its own at the new backend.
type claim struct {
	adapter *Adapter
	channel string
	since   time.Time // zero: the claim is not held
}

// beside returns the name of a further channel of the migration, next to its
// control channel.
func (a *Adapter) beside(what string) string {
	return a.control[:len(a.control)-1] + ":" + what + "}"
}

// held reports whether the claim is certainly held.
func (c *claim) held() bool { return !c.since.IsZero() && time.Since(c.since) < claimFor/2 }

// hold claims the channel, unless another hub has.
func (c *claim) hold(ctx context.Context) (mine bool, err error) {
	if c.held() {
		return true, nil
	}
	began := time.Now()
	last, entry, err := c.read(ctx)
	if err != nil {
		return false, err
	}
	me := fmt.Sprintf("migrate1 claim %016x", c.adapter.id)
	if entry != nil && string(entry.Frame) != me && entry.Age < claimFor {
		return false, nil
	}
	_, _, err = c.adapter.to.historian.Append(ctx, c.channel, adapter.Record{
		Frame: []byte(me), Messages: 1, Keep: claimKeep, Time: time.Now(),
		Publisher: logPublisher, Stream: 1, Seq: last + 1,
	})
	if err != nil {
		return false, err
	}
	if _, entry, err = c.read(ctx); err != nil || entry == nil || string(entry.Frame) != me {
		return false, err
	}
	c.since = began
	return true, nil
}

// read returns the number of claims and the last claim, which is nil if there
// is none or if it is too old to be kept.
func (c *claim) read(ctx context.Context) (last uint64, entry *adapter.KeptFrame, err error) {
	q := adapter.Query{Limit: claimKeep.Messages, Keep: claimKeep, Time: time.Now()}
	page, err := c.adapter.to.historian.History(ctx, c.channel, q)
	if n := len(page.Frames); err == nil && n > 0 {
		entry = &page.Frames[n-1]
	}
	return page.Head.Offset, entry, err
}
