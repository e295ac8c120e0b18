package questions

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/ask"
	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/gate"
	"github.com/fanoutgo/fanout/internal/notices"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

// A net is some hubs, numbered from 1, that reach each other at once.
type net struct {
	t    *testing.T
	hubs []*hub
}

type hub struct {
	Switchboard
	ops     *gate.Gate
	closing chan struct{}
	perform func(ctx context.Context, q *control.Question, t Taker) (uint64, error)
	deaf    bool        // nothing arrives, though it counts
	gone    atomic.Bool // it does not count
}

// A channel sends to some hubs.
type channel struct{ to []*hub }

func (c channel) Hold()    {}
func (c channel) Release() {}

func (c channel) Notify(_ context.Context, notice []byte) (receivers int, err error) {
	from, payload, err := wire.DecodeControl(notice)
	for _, h := range c.to {
		if !h.gone.Load() {
			receivers++
		}
		if !h.gone.Load() && !h.deaf {
			h.Put(from, payload, nil)
		}
	}
	return receivers, err
}

// in runs a test with n hubs. When it ends nothing of a question may be left.
func in(t *testing.T, n int, test func(t *testing.T, n *net)) {
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(context.Background())
		all := &net{t: t}
		for i := range n {
			h := &hub{ops: gate.New(), closing: make(chan struct{})}
			h.perform = func(context.Context, *control.Question, Taker) (uint64, error) { return uint64(i + 1), nil }
			all.hubs = append(all.hubs, h)
		}
		for i, h := range all.hubs {
			h.Init(&Env{
				Notices: &notices.Sender{
					Hub: uint64(i + 1), Context: ctx, Go: wg.Go,
					Everyone: func() notices.Channel { return channel{all.hubs} },
					Inbox:    func(hub uint64) notices.Channel { return channel{all.hubs[hub-1 : hub]} },
				},
				Ops: h.ops, Closing: h.closing,
				Known: func() (known []ask.Known) {
					for i := range all.hubs {
						known = append(known, ask.Known{Hub: uint64(i + 1), Heard: time.Now()})
					}
					return known
				},
				Listens: func(*control.Question) []uint64 { return []uint64{0} },
				Perform: func(ctx context.Context, _ uint64, q *control.Question, _ any, t Taker) (uint64, error) {
					return h.perform(ctx, q, t)
				},
				Presence:  func(*control.Question) *control.Answer { return &control.Answer{Status: control.StatusLast} },
				Received:  func(uint64, control.Payload) {},
				Malformed: func(err error) { require.NoError(t, err) }, SweepLater: func() {},
			})
		}
		test(t, all)
		cancel()
		wg.Wait()
		for _, h := range all.hubs {
			require.Zero(t, h.Pending())
			require.True(t, h.Sweep(time.Now().Add(time.Hour)).IsZero())
		}
	})
}

// ask has the first hub ask everyone, and returns the sum of the counts.
func (n *net) ask(ctx context.Context, q control.Question) (sum uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	h := n.hubs[0]
	op := h.ops.Begin()
	require.NotNil(n.t, op)
	defer op.End()
	q.Scope, q.Wait = control.ScopeEveryone, 10_000
	lanes := []Lane{{Out: channel{n.hubs}}}
	err = h.Ask(ctx, op, &q, lanes, func(_ uint64, a *control.Answer) bool {
		if a.Status.Final() {
			sum += a.Count
		}
		return true
	})
	return sum, err
}

func TestAsk(t *testing.T) {
	count := control.Question{Op: control.OpCount}
	t.Run("returns when all have answered", func(t *testing.T) {
		in(t, 4, func(t *testing.T, n *net) {
			sum, err := n.ask(t.Context(), count)
			require.NoError(t, err)
			require.EqualValues(t, 1+2+3+4, sum)
		})
	})
	t.Run("names hubs that fail, and says why", func(t *testing.T) {
		in(t, 3, func(t *testing.T, n *net) {
			n.hubs[1].perform = func(context.Context, *control.Question, Taker) (uint64, error) { return 0, errors.New("out of order") }
			n.hubs[2].perform = func(context.Context, *control.Question, Taker) (uint64, error) { return 0, ErrNotUnderstood }
			sum, err := n.ask(t.Context(), count)
			incomplete, is := errors.AsType[*Incomplete](err)
			require.True(t, is)
			require.NoError(t, incomplete.Err)
			require.ElementsMatch(t, []Failure{{2, "out of order"}, {3, "its release does not know what it was asked"}}, incomplete.Failed)
			require.EqualValues(t, 1, sum)
		})
	})
	t.Run("names hubs that are silent when its time is over", func(t *testing.T) {
		in(t, 3, func(t *testing.T, n *net) {
			n.hubs[2].deaf = true
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			sum, err := n.ask(ctx, count)
			incomplete, is := errors.AsType[*Incomplete](err)
			require.True(t, is)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Len(t, incomplete.Silent, 1)
			require.EqualValues(t, 3, incomplete.Silent[0].Hub)
			require.EqualValues(t, 1+2, sum)
		})
	})
	t.Run("does not wait for a hub that is gone", func(t *testing.T) {
		in(t, 3, func(t *testing.T, n *net) {
			n.hubs[2].deaf = true
			time.AfterFunc(time.Second, func() {
				n.hubs[2].gone.Store(true)
				n.hubs[0].HubGone(3)
			})
			sum, err := n.ask(t.Context(), count)
			require.NoError(t, err)
			require.EqualValues(t, 1+2, sum)
		})
	})
	t.Run("ends when the hub closes", func(t *testing.T) {
		in(t, 2, func(t *testing.T, n *net) {
			n.hubs[1].deaf = true
			time.AfterFunc(time.Second, func() { close(n.hubs[0].closing) })
			_, err := n.ask(t.Context(), count)
			require.ErrorIs(t, err, adapter.ErrClosed)
		})
	})
}

func TestPoll(t *testing.T) {
	question := control.Question{Op: control.OpAsk}
	t.Run("collects answers until all have answered or ended", func(t *testing.T) {
		in(t, 2, func(t *testing.T, n *net) {
			h := n.hubs[1]
			h.perform = func(ctx context.Context, q *control.Question, taker Taker) (uint64, error) {
				p := h.Poll(q.Data)
				defer p.Close()
				for m := range uint64(3) {
					p.Add(m)
				}
				require.Same(t, p, h.PollOf(p.Data))
				time.AfterFunc(time.Second, func() {
					open, err := p.Reply(ctx, control.Entry{Number: 0, Data: []byte("yes")})
					require.True(t, open)
					require.NoError(t, err)
					open, _ = p.Reply(ctx, control.Entry{Number: 0})
					require.False(t, open, "a second answer")
				})
				time.AfterFunc(2*time.Second, func() { h.MemberGone(1) })
				time.AfterFunc(3*time.Second, func() { p.Gone(2) })
				return 3, p.Collect(ctx, 3, taker)
			}
			begun := time.Now()
			sum, err := n.ask(t.Context(), question)
			require.NoError(t, err)
			require.EqualValues(t, 1+3, sum)
			require.Equal(t, 3*time.Second, time.Since(begun).Truncate(time.Second))
		})
	})
	t.Run("takes no answers once nobody waits", func(t *testing.T) {
		in(t, 1, func(t *testing.T, n *net) {
			p := n.hubs[0].Poll(nil)
			p.Add(1)
			require.Same(t, p, n.hubs[0].PollOf(p.Data), "even without data it has an address")
			p.Close()
			open, err := p.Reply(t.Context(), control.Entry{Number: 1})
			require.False(t, open)
			require.NoError(t, err)
			require.Nil(t, n.hubs[0].PollOf(p.Data))
		})
	})
	t.Run("has an answer wait for room", func(t *testing.T) {
		in(t, 1, func(t *testing.T, n *net) {
			p := n.hubs[0].Poll(nil)
			defer p.Close()
			p.Add(1)
			p.Add(2)
			open, err := p.Reply(t.Context(), control.Entry{Number: 1, Data: make([]byte, maxReplies)})
			require.True(t, open)
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err = p.Reply(ctx, control.Entry{Number: 2, Data: []byte("1")})
			require.ErrorIs(t, err, context.DeadlineExceeded)
		})
	})
}

// The page comes between the moments in which those that were heard are told, and
// in which the question is forgotten.
func TestPageOfAnAbandonedQuestion(t *testing.T) {
	in(t, 2, func(t *testing.T, n *net) {
		n.hubs[1].perform = func(_ context.Context, _ *control.Question, to Taker) (uint64, error) {
			return 2, to.Flush(1) // a second page follows, and waits to be consumed
		}
		asker := &n.hubs[0].Switchboard
		a := &asking{board: asker, kick: make(chan struct{}, 1), heard: make(map[uint64]bool), open: make(map[uint64]bool)}
		a.question = control.Question{Op: control.OpCount, Scope: control.ScopeEveryone, Wait: 600_000, Credit: 2}
		a.register()
		a.abandon()
		n.hubs[1].Put(1, a.question.Append(nil), nil)
		synctest.Wait()
		require.Zero(t, n.hubs[1].Pending(), "the hub that answers is told")
		a.forget()
	})
}
