package questions

import (
	"context"
	"slices"
	"time"
	"unsafe"

	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/locks"
)

const (
	// gatherTime is how long a reply waits for others, to be sent together with
	// them.
	gatherTime = 5 * time.Millisecond
	// maxReplies bounds the replies that wait to be sent, in bytes. A member
	// whose reply does not fit waits until there is room.
	maxReplies = 1 << 20
)

// A Poll is a question to members of this hub. Its methods may be called
// concurrently.
type Poll struct {
	// Data is the question. No other question has its data at the same address.
	Data []byte

	board *Switchboard

	mu      locks.Mutex[locks.Innermost] // guards all below
	rooms   []string                     // see Within
	waiting map[uint64]bool              // members that have not answered
	replies []control.Entry
	bytes   int
	closed  bool          // nobody waits for answers
	room    chan struct{} // closed when replies have been sent
	kick    chan struct{} // capacity 1: a member has answered, or is gone
}

// Poll begins a question to members, with a copy of data. The caller closes it.
func (s *Switchboard) Poll(data []byte) *Poll {
	p := &Poll{
		board: s, Data: append(make([]byte, 0, len(data)+1), data...), // an address, even if it is empty
		waiting: make(map[uint64]bool), room: make(chan struct{}), kick: make(chan struct{}, 1),
	}
	s.mu.Lock()
	s.polls[unsafe.SliceData(p.Data)] = p
	s.mu.Unlock()
	return p
}

// PollOf returns the poll whose Data is data itself, not a copy of it; nil if
// there is none.
func (s *Switchboard) PollOf(data []byte) *Poll {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.polls[unsafe.SliceData(data)]
}

// MemberGone says that a member has ended: its answers are no longer waited
// for.
func (s *Switchboard) MemberGone(member uint64) {
	for _, p := range s.openPolls() {
		p.Gone(member)
	}
}

// MemberLeft says that a member has left a room. Polls that go by rooms no
// longer wait for it if it is in none of theirs. The isIn function reports
// whether it is in the room with a channel.
func (s *Switchboard) MemberLeft(member uint64, isIn func(channel string) bool) {
	for _, p := range s.openPolls() {
		p.mu.Lock()
		rooms := p.rooms
		p.mu.Unlock()
		if len(rooms) > 0 && !slices.ContainsFunc(rooms, isIn) {
			p.Gone(member)
		}
	}
}

func (s *Switchboard) openPolls() (polls []*Poll) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.polls {
		polls = append(polls, p)
	}
	return polls
}

// Within says that the question goes to the members of rooms, of which these
// are the channels. It is called before Add.
func (p *Poll) Within(rooms []string) {
	p.mu.Lock()
	p.rooms = rooms
	p.mu.Unlock()
}

// Add notes that a member is about to get the question.
func (p *Poll) Add(member uint64) {
	p.mu.Lock()
	p.waiting[member] = true
	p.mu.Unlock()
}

// Gone says that a member does not answer.
func (p *Poll) Gone(member uint64) {
	p.mu.Lock()
	delete(p.waiting, member)
	p.mu.Unlock()
	signal(p.kick)
}

// Reply takes the answer of a member, with a copy of its data. It waits until
// there is room for it. It reports false if nobody waits for the answer.
func (p *Poll) Reply(ctx context.Context, e control.Entry) (open bool, err error) {
	for {
		p.mu.Lock()
		switch {
		case p.closed || !p.waiting[e.Number]:
			p.mu.Unlock()
			return false, nil
		case p.bytes == 0 || p.bytes+len(e.Data) <= maxReplies:
			delete(p.waiting, e.Number)
			e.Data = slices.Clone(e.Data)
			p.replies = append(p.replies, e)
			p.bytes += len(e.Data)
			p.mu.Unlock()
			signal(p.kick)
			return true, nil
		}
		room := p.room
		p.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return true, context.Cause(ctx)
		}
	}
}

// Close ends the poll.
func (p *Poll) Close() {
	s := p.board
	s.mu.Lock()
	delete(s.polls, unsafe.SliceData(p.Data))
	s.mu.Unlock()
	p.mu.Lock()
	p.closed = true
	close(p.room)
	p.mu.Unlock()
}

// Collect passes on the answers of count members, until all of them have
// answered or ended.
func (p *Poll) Collect(ctx context.Context, count uint64, t Taker) error {
	if err := t.Flush(count); err != nil { // so that the asker knows how many members there are
		return err
	}
	t.Rest()
	for {
		replies, all := p.takeReplies()
		for i := range replies {
			if err := t.Put(&replies[i]); err != nil {
				return err
			}
		}
		switch {
		case all:
			return nil
		case len(replies) > 0:
			if err := t.Flush(count); err != nil {
				return err
			}
		}
		if err := p.board.await(ctx, p.kick); err != nil {
			return err
		}
		p.gather(ctx)
	}
}

// gather waits for more answers, unless all are there.
func (p *Poll) gather(ctx context.Context) {
	ends := time.NewTimer(gatherTime)
	defer ends.Stop()
	for {
		p.mu.Lock()
		all := len(p.waiting) == 0
		p.mu.Unlock()
		if all {
			return
		}
		select {
		case <-p.kick:
		case <-ends.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// takeReplies returns the answers that have come, and whether no more will.
func (p *Poll) takeReplies() (replies []control.Entry, all bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	replies = p.replies
	p.replies, p.bytes = nil, 0
	close(p.room)
	p.room = make(chan struct{})
	return replies, len(p.waiting) == 0
}
