package fanout

import (
	"cmp"
	"context"
	"errors"
	"iter"

	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/questions"
)

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
// If the selection is one of rooms, a member that leaves them before it answers
// is not waited for either, and its answer is no longer taken, even if it comes
// back. A member that is still in another room of the selection is waited for.
//
// A question is in no history. Which errors there are, and how long Ask waits,
// is as with [Selection.Count]; then PartialError.Unanswered is the number of
// members that got the question and have not answered, with those that have
// ended or left. Data may be as long as a message. The
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
				r := Reply{Member: item.MemberID(hubID(hub), e.Number), User: string(e.Name), Data: item.CloneData(e.Data)}
				if stopped = !yield(r, nil); stopped {
					return false
				}
			}
			return true
		})
		if partial, is := errors.AsType[*PartialError](err); is {
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
// one to a message that is no question, one of a member that has ended or has
// left the rooms that were asked (see [Selection.Ask]), and one after the asker
// has gone are [ErrNoQuestion]. Reply copies data, and waits until the hub has taken it to
// be sent, which may take until others have been sent. Other errors are
// [ErrTooLarge] and that of ctx.
func (m *Member) Reply(ctx context.Context, to Message, data []byte) error {
	if err := cmp.Or(context.Cause(ctx), m.hub.checkSize(data)); err != nil {
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
