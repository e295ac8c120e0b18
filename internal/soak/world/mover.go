package world

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/soak/check"
)

// A mover is a client that moves: it joins rooms, leaves them, resumes where it
// was, reads histories, and connects to another hub.
type mover struct {
	*client
	random *rand.Rand
}

func (w *World) newMover(ctx context.Context, i int) (*mover, error) {
	name := fmt.Sprint("mover", i)
	c, err := w.newClient(ctx, name, name, i%Hubs)
	return &mover{c, rand.New(rand.NewPCG(w.config.Seed, uint64(i)+1))}, err
}

// atOnce is the maximum number of rooms that a mover is in.
const atOnce = 8

// run moves until settle is closed, and then returns to all rooms with history
// that it has been in, so that all messages can be accounted for.
func (m *mover) run(ctx context.Context) {
	for m.pause(ctx, 20*time.Millisecond, 300*time.Millisecond) {
		m.world.still.RLock()
		err := m.move(ctx)
		m.world.still.RUnlock()
		if err != nil {
			m.world.fail(err)
			return
		}
	}
	for i, p := range m.rooms {
		if p.in == nil && !p.last.IsZero() && ctx.Err() == nil {
			if err := m.resume(ctx, i, p.last); err != nil {
				m.world.fail(err)
				return
			}
		}
	}
}

// pause waits for a while, and reports whether to continue.
func (m *mover) pause(ctx context.Context, least, most time.Duration) bool {
	t := time.NewTimer(least + time.Duration(m.random.Int64N(int64(most-least))))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-m.world.settle:
	case <-ctx.Done():
	}
	return false
}

// move makes one random move.
func (m *mover) move(ctx context.Context) error {
	i := m.random.IntN(len(m.rooms))
	p := m.rooms[i]
	switch n := m.random.IntN(100); {
	case n < 6:
		return m.reconnect(ctx)
	case n < 12:
		return m.history(ctx, p)
	case p.in != nil:
		return m.leave(ctx, i)
	case m.count() >= atOnce:
		return m.leaveOne(ctx)
	}
	return m.come(ctx, i)
}

func (m *mover) count() (n int) {
	for _, p := range m.rooms {
		if p.in != nil {
			n++
		}
	}
	return n
}

func (m *mover) leaveOne(ctx context.Context) error {
	skip := m.random.IntN(m.count())
	for i, p := range m.rooms {
		if p.in == nil {
			continue
		}
		if skip == 0 {
			return m.leave(ctx, i)
		}
		skip--
	}
	return nil
}

// come joins a room or resumes it.
func (m *mover) come(ctx context.Context, i int) error {
	p := m.rooms[i]
	if p.room.keeps == 0 {
		return m.join(ctx, i)
	}
	switch n := m.random.IntN(100); {
	case !p.last.IsZero() && n < 85:
		return m.resume(ctx, i, p.last)
	case n%2 == 0:
		return m.resume(ctx, i, fanout.Position{})
	}
	return m.join(ctx, i)
}

// reconnect connects to another hub, as a client does whose connection broke,
// and returns to the rooms in which it was.
func (m *mover) reconnect(ctx context.Context) error {
	var were []int
	for i, p := range m.rooms {
		if p.in != nil {
			were = append(were, i)
		}
	}
	m.close()
	if err := m.connect((m.hub + 1 + m.random.IntN(Hubs-1)) % Hubs); err != nil {
		return err
	}
	for _, i := range were {
		enter := m.join
		if last := m.rooms[i].last; !last.IsZero() {
			enter = func(ctx context.Context, i int) error { return m.resume(ctx, i, last) }
		}
		if err := enter(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// history reads the history after a random message that the client has
// received.
func (m *mover) history(ctx context.Context, p *presence) error {
	if p.room.keeps == 0 {
		return nil
	}
	ctx, cancel := within(ctx)
	defer cancel()
	r := &check.Read{Client: m.name, Since: m.somewhere(p), Begin: m.world.now()}
	messages, err := m.world.Hubs[m.hub].Room(p.room.Name).History(ctx, r.Since, 0)
	r.End = m.world.now()
	gap := new(fanout.GapError)
	switch {
	case errors.As(err, &gap):
		r.Missed, r.Unknown = gap.Missed, gap.Unknown
	case err != nil:
		return fmt.Errorf("%s on hub %d, from %v to %v: %w", m.name, m.hub, r.Begin, r.End, err)
	}
	for _, msg := range messages {
		id, ok := parse(msg.Data)
		if !ok {
			return fmt.Errorf("%s read %q in the history of room %q, which was never published", m.name, msg.Data[:min(len(msg.Data), 64)], p.room.Name)
		}
		r.Messages = append(r.Messages, check.Event{Message: id, Position: msg.Position})
	}
	p.room.mu.Lock()
	p.room.reads = append(p.room.reads, r)
	p.room.mu.Unlock()
	return nil
}

// somewhere returns the position of one of the latest messages.
func (m *mover) somewhere(p *presence) fanout.Position {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(p.stays) == 0 {
		return fanout.Position{}
	}
	events := p.stays[len(p.stays)-1].Events
	events = events[max(0, len(events)-500):]
	if len(events) == 0 {
		return p.last
	}
	if e := events[m.random.IntN(len(events))]; !e.Gap {
		return e.Position
	}
	return p.last
}
