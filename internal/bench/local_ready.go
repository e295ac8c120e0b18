package main

import (
	"context"
	"runtime"
	"sync"

	"github.com/fanoutgo/fanout"
)

// A readyHall is a fanout.Hub without a goroutine for each member: OnReady
// hands members to a few workers.
type readyHall struct {
	*fanoutHall
	work    chan fanoutMember // each member at most once
	workers sync.WaitGroup
}

func openReadyHall(o hallOptions) (hall, error) {
	h, err := openFanoutHall(o)
	if err != nil {
		return nil, err
	}
	r := &readyHall{fanoutHall: h.(*fanoutHall), work: make(chan fanoutMember, o.members)}
	for range runtime.GOMAXPROCS(0) {
		r.workers.Go(r.serve)
	}
	return r, nil
}

func (h *readyHall) join(room int, t *localTally) error {
	o := new(fanout.MemberOptions)
	if t != nil { // a member that never receives anything has no worker
		o.OnReady = func(m *fanout.Member) { h.work <- fanoutMember{m, t} }
	}
	m, err := h.hub.Connect(o)
	if err != nil {
		return err
	}
	h.members[h.joined] = fanoutMember{m, t}
	h.joined++
	return h.hub.Room(h.rooms[room].Name()).Join(context.Background(), m)
}

// receive does nothing: the workers receive for all.
func (h *readyHall) receive(int) {}

func (h *readyHall) serve() {
	buf := make([]fanout.Message, 64)
	for m := range h.work {
		for {
			n, err := m.TryReceiveBatch(buf)
			if err != nil {
				m.failed(err)
				break
			}
			if n == 0 {
				break
			}
			m.tally.got(n)
		}
	}
}

func (h *readyHall) close() error {
	err := h.fanoutHall.close()
	close(h.work)
	h.workers.Wait()
	return err
}

// A contextHall is a channelHall whose members wait for a context as well, as
// the goroutine of a connection does.
type contextHall struct {
	*channelHall
	ctx    context.Context
	cancel context.CancelFunc
}

func openContextHall(o hallOptions) (hall, error) {
	h, err := openChannelHall(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &contextHall{h.(*channelHall), ctx, cancel}, nil
}

func (h *contextHall) receive(member int) {
	m := h.members[member]
	ctx, cancel := context.WithCancel(h.ctx) // of the connection
	defer cancel()
	for {
		select {
		case _, ok := <-m.messages:
			if !ok {
				return
			}
			m.tally.got(1)
		case <-ctx.Done():
			return
		}
	}
}

func (h *contextHall) close() error {
	h.cancel()
	return h.channelHall.close()
}
