package fanout

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"
	"unsafe"

	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/roomlog"
)

// ErrNoQuestion means that a message cannot be answered: it is no question, the
// member has answered it, or its asker no longer waits.
var ErrNoQuestion = errors.New("not an open question")

// A Reply is the answer of a member to Selection.Ask.
type Reply struct {
	Member string // its ID
	User   string // of MemberOptions
	Data   []byte
}

const (
	// gatherTime is how long replies wait for others to travel with.
	gatherTime = 5 * time.Millisecond
	// maxReplies bounds the replies that wait to be sent, in bytes. A member
	// whose reply does not fit waits until there is room.
	maxReplies = 1 << 20
)

// A poll is a question to members of this hub that some have not answered.
type poll struct {
	hub *Hub
	key *byte

	mu      locks.Mutex[locks.Innermost] // guards all below
	waiting map[uint64]bool              // members that have not answered
	replies []control.Entry
	bytes   int
	closed  bool          // nobody waits for answers
	room    chan struct{} // closed when replies have been sent
	kick    chan struct{} // capacity 1: a member has answered, or is gone
}

// Ask sends data to the selected members as a question, a direct message that
// they answer with [Member.Reply], and yields the answers as they come. It ends
// when all members that got the question have answered or ended. The way back
// is between hubs only, so no client can answer for another.
//
// A question is in no history. Which errors there are, and how long Ask waits,
// is as with [Selection.Count]; members that have not answered in time are
// counted in PartialError.Unanswered. Data may be as long as a message. The
// body of the loop may call the hub, as that of [Selection.Members] may.
func (s Selection) Ask(ctx context.Context, data []byte) iter.Seq2[Reply, error] {
	return func(yield func(Reply, error) bool) {
		if s.hub != nil {
			if err := s.hub.checkSize(data); err != nil {
				yield(Reply{}, failed("ask", err))
				return
			}
		}
		stopped, answers := false, 0
		asked := make(map[uint64]int) // members by hub
		q := &control.Question{Op: control.OpAsk, Data: data}
		err := s.query(ctx, "ask", q, func(hub uint64, a *control.Answer) bool {
			asked[hub] = max(asked[hub], int(a.Count))
			for i := range a.Entries {
				e := &a.Entries[i]
				answers++
				r := Reply{Member: item.MemberID(hubID(hub), e.Number), User: string(e.Name), Data: clonePayload(e.Data)}
				if stopped = !yield(r, nil); stopped {
					return false
				}
			}
			return true
		})
		if partial := (*PartialError)(nil); errors.As(err, &partial) {
			for _, n := range asked {
				partial.Unanswered += n
			}
			partial.Unanswered -= answers
		}
		if err != nil && !stopped {
			yield(Reply{}, err)
		}
	}
}

// IsQuestion reports whether the message, which the member has received, is a
// question that can be answered with Reply. A question can be answered while
// its asker waits.
func (m *Member) IsQuestion(msg Message) bool { return m.hub.pollOf(&msg) != nil }

// Reply answers a question: to is the message that the member has received,
// with its Data as it was, not a copy. A member answers once; a second answer,
// one to a message that is no question, and one after the asker has gone are
// [ErrNoQuestion]. Reply copies data, and waits until the hub has taken it to
// be sent, which may take until others have been sent. Other errors are
// [ErrTooLarge] and that of ctx.
func (m *Member) Reply(ctx context.Context, to Message, data []byte) error {
	if err := m.hub.checkSize(data); err != nil {
		return failed("reply", err)
	}
	p := m.hub.pollOf(&to)
	if p == nil {
		return failed("reply", ErrNoQuestion)
	}
	return failed("reply", p.reply(ctx, m, data))
}

// pollOf returns the question that a message is, nil if it is none. All members
// share its data, which has an address of its own.
func (h *Hub) pollOf(msg *Message) *poll {
	s := &h.switchboard
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.polls[unsafe.SliceData(msg.Data)]
}

// reply takes the answer of a member.
func (p *poll) reply(ctx context.Context, m *Member, data []byte) error {
	for {
		p.mu.Lock()
		switch {
		case p.closed || !p.waiting[m.num]:
			p.mu.Unlock()
			return ErrNoQuestion
		case p.bytes == 0 || p.bytes+len(data) <= maxReplies:
			delete(p.waiting, m.num)
			p.replies = append(p.replies, control.Entry{Number: m.num, Name: []byte(m.User()), Data: slices.Clone(data)})
			p.bytes += len(data)
			p.mu.Unlock()
			signal(p.kick)
			return nil
		}
		room := p.room
		p.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// gone says that a member has ended: nobody waits for its answers.
func (s *switchboard) gone(m *Member) {
	s.mu.Lock()
	var polls []*poll
	for _, p := range s.polls {
		polls = append(polls, p)
	}
	s.mu.Unlock()
	for _, p := range polls {
		p.gone(m.num)
	}
}

func (p *poll) gone(member uint64) {
	p.mu.Lock()
	delete(p.waiting, member)
	p.mu.Unlock()
	signal(p.kick)
}

// poll puts a question to members, and hands on their answers until all have
// answered or ended.
func (h *Hub) poll(ctx context.Context, sender string, q *control.Question, c *chosen, t taker) (count uint64, err error) {
	data := append(make([]byte, 0, len(q.Data)+1), q.Data...) // an address of its own, even if it is empty
	p := &poll{
		hub: h, key: unsafe.SliceData(data),
		waiting: make(map[uint64]bool), room: make(chan struct{}), kick: make(chan struct{}, 1),
	}
	s := &h.switchboard
	s.mu.Lock()
	s.polls[p.key] = p
	s.mu.Unlock()
	defer p.close()
	count, err = c.each(ctx, func(m *Member) error {
		p.mu.Lock()
		p.waiting[m.num] = true
		p.mu.Unlock()
		m.send(roomlog.Gap{}, []item.Entry{{Data: data, Sender: sender}})
		if m.refusal() != nil { // it may not have got it
			p.gone(m.num)
		}
		return nil
	})
	if err != nil || count == 0 {
		return count, err
	}
	if err := t.flush(count); err != nil { // now its asker knows how many there are
		return count, err
	}
	if a, ok := t.(*answering); ok {
		a.rest()
	}
	return count, p.collect(ctx, count, t)
}

// close ends the poll.
func (p *poll) close() {
	s := &p.hub.switchboard
	s.mu.Lock()
	delete(s.polls, p.key)
	s.mu.Unlock()
	p.mu.Lock()
	p.closed = true
	close(p.room)
	p.mu.Unlock()
}

// collect hands on the answers of members.
func (p *poll) collect(ctx context.Context, count uint64, t taker) error {
	for {
		replies, all := p.takeReplies()
		for i := range replies {
			if err := t.put(&replies[i]); err != nil {
				return err
			}
		}
		switch {
		case all:
			return nil
		case len(replies) > 0:
			if err := t.flush(count); err != nil {
				return err
			}
		}
		select {
		case <-p.kick:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.hub.closing:
			return ErrClosed
		}
		p.gather(ctx)
	}
}

// gather waits for more answers, unless all are there.
func (p *poll) gather(ctx context.Context) {
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
func (p *poll) takeReplies() (replies []control.Entry, all bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	replies = p.replies
	p.replies, p.bytes = nil, 0
	close(p.room)
	p.room = make(chan struct{})
	return replies, len(p.waiting) == 0
}
