package main

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/sharded"
)

// fanout has a member in each room. They come back when each of them, and not
// just the hub, has been told that messages may be missing.
func (e *estate) fanout(ctx context.Context) (f figures, err error) {
	client, err := connect(e.cluster)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	silent := slog.New(slog.DiscardHandler)
	a, err := sharded.New(client, &sharded.Options{Logger: silent})
	if err != nil {
		return nil, err
	}
	hub, err := fanout.New(a, &fanout.Options{Logger: silent})
	if err != nil {
		return nil, err
	}
	back := newCountdown()
	var receiving sync.WaitGroup
	defer func() {
		err = errors.Join(err, hub.Close(context.WithoutCancel(ctx)))
		receiving.Wait()
	}()
	members, f, err := e.settle(ctx, hub)
	if err != nil {
		return nil, err
	}
	for _, m := range members {
		receiving.Go(func() { countGaps(m, back) })
	}
	back.begin(len(members))
	outage, err := e.outage(ctx, back.wait)
	maps.Copy(f, outage)
	return f, err
}

// settle brings a member into each room, and measures how fast, and the memory
// that a room takes. What the members and their being in a room take is left out:
// it is known from all being in one room before.
func (e *estate) settle(ctx context.Context, hub *fanout.Hub) ([]*fanout.Member, figures, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	members := make([]*fanout.Member, len(e.rooms))
	for i := range members {
		m, err := hub.Connect(nil)
		if err != nil {
			return nil, nil, err
		}
		members[i] = m
	}
	connected, _ := heap()
	lobby := hub.Room("lobby")
	for _, m := range members {
		if err := lobby.Join(ctx, m); err != nil {
			return nil, nil, err
		}
	}
	together, _ := heap()
	rate, err := e.eachRoom(func(i int) error { return hub.Room(e.rooms[i]).Join(ctx, members[i]) })
	if err != nil {
		return nil, nil, err
	}
	apart, _ := heap()
	for _, m := range members {
		if err := lobby.Leave(ctx, m); err != nil {
			return nil, nil, err
		}
	}
	n := len(e.rooms)
	return members, figures{
		"join": rate,
		"room": bytesOfEach(together, apart, n) - bytesOfEach(connected, together, n),
	}, nil
}

// countGaps is a member's goroutine. Nobody says anything, so what it receives
// are gaps.
func countGaps(m *fanout.Member, back *countdown) {
	for {
		_, err := m.Receive(context.Background())
		var gap *fanout.GapError
		switch {
		case errors.As(err, &gap):
			back.one()
		case err != nil:
			return
		}
	}
}
