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

// fanout has a member in each room. The rooms are back when each member, and
// not just the hub, has been told that messages may be missing.
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

// settle joins a member to each room, and measures the rate, and the memory of
// a room here and on the servers. The memory of members and memberships does
// not count: it is known from the same number of other members, which are all
// in one room.
func (e *estate) settle(ctx context.Context, hub *fanout.Hub) ([]*fanout.Member, figures, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	crowd, err1 := connectMembers(hub, len(e.rooms))
	members, err2 := connectMembers(hub, len(e.rooms))
	if err := errors.Join(err1, err2); err != nil {
		return nil, nil, err
	}
	connected, _ := heap()
	lobby := hub.Room("lobby")
	for _, m := range crowd {
		if err := lobby.Join(ctx, m); err != nil {
			return nil, nil, err
		}
	}
	together, _ := heap()
	empty, err := memoryOf(ctx, e.cluster)
	if err != nil {
		return nil, nil, err
	}
	rate, err := e.eachRoom(func(i int) error { return hub.Room(e.rooms[i]).Join(ctx, members[i]) })
	if err != nil {
		return nil, nil, err
	}
	apart, _ := heap()
	full, err := memoryOf(ctx, e.cluster)
	for _, m := range crowd {
		m.Close()
	}
	n := len(e.rooms)
	return members, figures{
		"join":  rate,
		"room":  bytesOfEach(together, apart, n) - bytesOfEach(connected, together, n),
		"redis": (full - empty) / float64(n),
	}, err
}

func connectMembers(hub *fanout.Hub, n int) (members []*fanout.Member, err error) {
	members = make([]*fanout.Member, n)
	for i := range members {
		if members[i], err = hub.Connect(nil); err != nil {
			return nil, err
		}
	}
	return members, nil
}

// countGaps is a member's goroutine. Nothing is published, so what it receives
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
