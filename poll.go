package fanout

import (
	"context"
	"errors"
	"iter"

	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/questions"
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
	open, err := p.Reply(ctx, control.Entry{Number: m.num, Name: []byte(m.User()), Data: data})
	if !open {
		err = ErrNoQuestion
	}
	return failed("reply", err)
}

// pollOf returns the question that a message is, nil if it is none. All members
// share its data, which has an address of its own.
func (h *Hub) pollOf(msg *Message) *questions.Poll { return h.switchboard.PollOf(msg.Data) }

// poll puts a question to members, and hands on their answers until all have
// answered or ended.
func (h *Hub) poll(ctx context.Context, sender string, q *control.Question, c *chosen, t questions.Taker) (count uint64, err error) {
	p := h.switchboard.Poll(q.Data)
	defer p.Close()
	count, err = c.each(ctx, func(m *Member) error {
		p.Add(m.num)
		m.send(roomlog.Gap{}, []item.Entry{{Data: p.Data, Sender: sender}})
		if m.refusal() != nil { // it may not have got it
			p.Gone(m.num)
		}
		return nil
	})
	if err != nil || count == 0 {
		return count, err
	}
	return count, p.Collect(ctx, count, t)
}
