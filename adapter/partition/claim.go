package partition

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/backoff"
)

const (
	// claimFor is how long a claim lasts. A hub copies only in the first half
	// of it, and claims anew after that.
	claimFor = 10 * time.Second
	// released is the text of a claim that was given up.
	released = "released"
)

// claimKeep keeps one message more than is needed.
var claimKeep = adapter.Retention{Messages: 2, Age: time.Hour}

// A claim keeps other hubs from copying a room's history. It is the last entry
// of a history of its own at the new home.
type claim struct {
	part    *part
	channel string
	holder  string    // names this hub
	since   time.Time // zero: the claim is not held
}

func (m *move) claim(p *part) *claim {
	return &claim{part: p, channel: besideChannel(m.name, "c"), holder: fmt.Sprintf("%016x", m.adapter.id)}
}

// hold claims the history, unless another hub has.
func (c *claim) hold(ctx context.Context) (mine bool, err error) {
	if !c.since.IsZero() && time.Since(c.since) < claimFor/2 {
		return true, nil
	}
	began := time.Now()
	last, entry, err := c.read(ctx)
	if err != nil {
		return false, err
	}
	if who := string(entry.Frame); who != "" && who != released && who != c.holder && entry.Age < claimFor {
		return false, nil
	}
	if err = c.write(ctx, last, c.holder); err != nil {
		return false, err
	}
	if _, entry, err = c.read(ctx); err != nil || string(entry.Frame) != c.holder {
		return false, err
	}
	c.since = began
	return true, nil
}

// release lets the next hub have the claim at once.
func (c *claim) release(ctx context.Context) {
	if last, entry, err := c.read(ctx); err == nil && string(entry.Frame) == c.holder {
		_ = c.write(ctx, last, released) // if that fails the claim ends after claimFor
	}
}

// read returns the number of the last entry, and the entry, which is zero if
// none is kept.
func (c *claim) read(ctx context.Context) (last uint64, entry adapter.KeptFrame, err error) {
	q := adapter.Query{Limit: claimKeep.Messages, Keep: claimKeep, Time: time.Now()}
	page, err := c.part.history.History(ctx, c.channel, q)
	if n := len(page.Frames); err == nil && n > 0 {
		entry = page.Frames[n-1]
	}
	return page.Head.Offset, entry, err
}

// write adds an entry after the last one. If another hub has done so, it does
// nothing.
func (c *claim) write(ctx context.Context, last uint64, text string) error {
	_, _, err := c.part.history.Append(ctx, c.channel, adapter.Record{
		Frame: []byte(text), Messages: 1, Keep: claimKeep, Time: time.Now(),
		Publisher: mover, Stream: 1, Seq: last + 1,
	})
	return err
}

// alone runs f while no other hub copies the history to p. If another hub
// finishes first, alone returns the lineage that the other hub has noted.
func (m *move) alone(ctx context.Context, p *part, f func(*claim) (lineage, error)) (lineage, error) {
	c := m.claim(p)
	var wait backoff.Backoff
	for {
		mine, err := c.hold(ctx)
		if err != nil {
			return lineage{}, err
		}
		line, _, _, err := m.record(ctx, p)
		if err == nil && !m.done(&line) && mine {
			line, err = f(c)
		} else if err == nil && !m.done(&line) {
			if !wait.Wait(ctx) {
				return lineage{}, fmt.Errorf("another hub copies it: %w", context.Cause(ctx))
			}
			continue
		}
		if mine {
			c.release(ctx)
		}
		return line, err
	}
}

// errOvertaken means that another hub continues the copy.
var errOvertaken = errors.New("another hub has gone on with copying the history")
