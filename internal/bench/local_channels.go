package main

import "sync"

// A channelHall is what one would write by hand: rooms in a map under a lock,
// and a buffered channel for each member. It promises less than the others: a
// publisher waits for a slow member, members may see messages of several
// publishers in different orders, and nothing is copied, so publishers must not
// modify their data afterwards.
type channelHall struct {
	names   []string
	members []channelMember // places for all
	joined  int

	mu    sync.RWMutex // guards rooms
	rooms map[string]map[chan []byte]struct{}
}

type channelMember struct {
	messages chan []byte
	tally    *localTally
}

func openChannelHall(o hallOptions) (hall, error) {
	return &channelHall{
		names:   roomNames(o.rooms),
		members: make([]channelMember, o.members),
		rooms:   make(map[string]map[chan []byte]struct{}),
	}, nil
}

func (h *channelHall) join(room int, t *localTally) error {
	c := make(chan []byte, localWindow)
	h.members[h.joined] = channelMember{c, t}
	h.joined++
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.rooms[h.names[room]]
	if r == nil {
		r = make(map[chan []byte]struct{})
		h.rooms[h.names[room]] = r
	}
	r[c] = struct{}{}
	return nil
}

func (h *channelHall) receive(member int) {
	m := h.members[member]
	for range m.messages {
		m.tally.got(1)
	}
}

func (h *channelHall) publish(room int, data []byte) error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for c := range h.rooms[h.names[room]] {
		c <- data
	}
	return nil
}

func (h *channelHall) close() error {
	for _, m := range h.members[:h.joined] {
		close(m.messages)
	}
	return nil
}
