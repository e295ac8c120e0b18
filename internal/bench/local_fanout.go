package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/fanoutgo/fanout"
)

// A fanoutHall is a fanout.Hub with a goroutine for each member, which receives
// in batches, as programs do that join many messages in one write.
type fanoutHall struct {
	hub     *fanout.Hub
	rooms   []*fanout.Room
	members []fanoutMember // places for all
	joined  int
	single  bool
}

type fanoutMember struct {
	*fanout.Member
	tally *localTally
}

func openFanoutHall(o hallOptions) (hall, error) {
	hub, err := fanout.New(nil, nil)
	if err != nil {
		return nil, err
	}
	h := &fanoutHall{hub: hub, members: make([]fanoutMember, o.members), single: o.single}
	for _, name := range roomNames(o.rooms) {
		h.rooms = append(h.rooms, hub.Room(name))
	}
	return h, nil
}

func (h *fanoutHall) join(room int, t *localTally) error {
	m, err := h.hub.Connect(nil)
	if err != nil {
		return err
	}
	h.members[h.joined] = fanoutMember{m, t}
	h.joined++
	// A new handle, since the memory of an existing one would not be counted.
	return h.hub.Room(h.rooms[room].Name()).Join(context.Background(), m)
}

func (h *fanoutHall) receive(member int) {
	if m := h.members[member]; h.single {
		m.receiveEach()
	} else {
		m.receiveBatches()
	}
}

func (m fanoutMember) receiveEach() {
	for {
		if _, err := m.Receive(context.Background()); err != nil {
			m.failed(err)
			return
		}
		m.tally.got(1)
	}
}

// receiveBatches is apart from receiveEach, whose stack is measured, because of
// its buffer.
func (m fanoutMember) receiveBatches() {
	buf := make([]fanout.Message, 64)
	for {
		n, err := m.ReceiveBatch(context.Background(), buf)
		if err != nil {
			m.failed(err)
			return
		}
		m.tally.got(n)
	}
}

func (m fanoutMember) failed(err error) {
	if !errors.Is(err, fanout.ErrClosed) {
		m.tally.rally.fail(fmt.Errorf("receive: %w", err))
	}
}

func (h *fanoutHall) publish(room int, data []byte) error {
	return h.rooms[room].Publish(context.Background(), data)
}

func (h *fanoutHall) close() error { return h.hub.Close(context.Background()) }
