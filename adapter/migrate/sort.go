package migrate

import (
	"context"
	"errors"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/migrate/internal/lane"
	"github.com/fanoutgo/fanout/internal/backoff"
)

// sortIn bounds how long the new backend may take to say what is a copy. After
// that, frames that may be copies are delivered, and the hub compares their
// positions with the history.
const sortIn = 5 * time.Second

// sort finds out which frames of a channel are copies.
func (a *Adapter) sort(c *channel) {
	made, err := a.askForCopy(c)
	if err == nil && made == nil {
		made, err = a.awaitCopy(c)
	}
	switch {
	case a.life.Err() != nil:
	case err != nil:
		a.tellLane(c, (*lane.Lane).Unsorted)
	default:
		a.copied(c.name, made)
	}
}

// askForCopy returns the copy of a channel's history, without the old backend.
// If it is not complete, it tells the lane where it is, and returns nil.
func (a *Adapter) askForCopy(c *channel) (*historyCopy, error) {
	ctx, cancel := context.WithTimeout(a.life, sortIn)
	defer cancel()
	for pause := (backoff.Backoff{}); ; {
		made, epoch, err := a.copyAtNew(ctx, c.name)
		switch {
		case err == nil && made == nil:
			a.tellLane(c, func(l *lane.Lane, calls []lane.Call) ([]lane.Call, lane.Task) {
				return l.Copying(epoch, calls)
			})
			return nil, nil
		case err == nil, errors.Is(err, adapter.ErrRefused), !pause.Wait(ctx):
			return made, err
		}
	}
}

// copyAtNew returns the copy of a channel's history if it is complete or there
// is none. Otherwise it returns nil and the epoch of the copy. A hub claims the
// channel before it copies anything.
func (a *Adapter) copyAtNew(ctx context.Context, channel string) (made *historyCopy, epoch uint64, err error) {
	if made, err = a.readMark(ctx, channel); err != nil || made != nil {
		return made, 0, err
	}
	one := claim{adapter: a, channel: a.besideOf("copy", channel)}
	if claims, _, err := one.read(ctx); err != nil || claims == 0 {
		return new(historyCopy), 0, err
	}
	page, err := a.to.historian.History(ctx, channel, adapter.Query{
		Keep: adapter.Retention{Messages: 1, Age: time.Hour}, Time: time.Now(),
	})
	return nil, firstEpoch(&page), err
}

// awaitCopy waits until the copy of a channel's history is complete. If the hub
// that makes the copy has died, this one continues it.
func (a *Adapter) awaitCopy(c *channel) (*historyCopy, error) {
	keep := c.keep.Load()
	if keep == nil {
		return nil, errors.New("migrate: it is not known what is kept of the history")
	}
	for {
		ctx, cancel := context.WithTimeout(a.life, carryIn)
		made, err := a.copyOf(ctx, c.name, *keep)
		late := ctx.Err() != nil
		cancel()
		if err == nil || !late || c.isGone() || a.life.Err() != nil {
			return made, err
		}
	}
}

// copied tells the lane of a channel which frames are copies. After Close it
// does not call the receiver.
func (a *Adapter) copied(name string, made *historyCopy) {
	if c := a.lookup(name); c != nil && a.close.Enter() {
		defer a.close.Leave()
		upTo := adapter.Position{Epoch: made.epoch, Offset: made.agreed}
		if made.unsure {
			upTo = adapter.Position{} // the hub compares positions with the history
		}
		a.tellLane(c, func(l *lane.Lane, calls []lane.Call) ([]lane.Call, lane.Task) { return l.Copied(upTo, calls) })
	}
}
