package publishing

import (
	"fmt"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/outbox"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

func TestInboxes(t *testing.T) {
	test := func(name string, f func(t *testing.T, x *tester, s *Inboxes, sweeps *int)) {
		in(t, name, slow, func(t *testing.T, x *tester) {
			var s Inboxes
			sweeps := 0
			s.Init(&x.env, func(hub string) string { return "inbox of " + hub },
				func(hub string, err error) error { return fmt.Errorf("hub %s: %w", hub, err) }, func() { sweeps++ })
			f(t, x, &s, &sweeps)
		})
	}
	publish := func(x *tester, c *Channel, a answer) error {
		result := make(chan error, 1)
		go func() { result <- c.Publish(x.t.Context(), &wire.Message{Data: []byte("m")}) }()
		x.answer(a)
		return <-result
	}
	test("say for whom a message was, and that nobody has got it", func(t *testing.T, x *tester, s *Inboxes, _ *int) {
		c := s.To("b")
		defer c.Release()
		require.NoError(t, publish(x, c, answer{receivers: 1}))
		err := publish(x, c, answer{receivers: 0})
		require.ErrorIs(t, err, ErrNoReceiver)
		require.ErrorContains(t, err, "hub b: ")
		require.ErrorIs(t, publish(x, c, answer{err: adapter.ErrRefused}), adapter.ErrRefused)
	})
	test("are kept while they are held, and for a while after that", func(t *testing.T, _ *tester, s *Inboxes, sweeps *int) {
		c := s.To("b")
		require.Same(t, c, s.To("b"))
		s.To("c").Release()
		require.Equal(t, 1, *sweeps, "the first has Sweep called, which then says when")
		c.Hold()
		for range 3 { // uses of b
			require.False(t, s.Sweep(time.Now().Add(time.Hour)).IsZero())
			require.Same(t, c, &s.byHub["b"].out)
			c.Release()
		}
		require.Equal(t, time.Now().Add(KeptFor), s.Sweep(time.Now()))
		time.Sleep(KeptFor)
		require.Zero(t, s.Sweep(time.Now()))
		s.To("b").Release()
		require.Equal(t, 2, *sweeps)
	})
	test("go on with their numbers", func(t *testing.T, x *tester, s *Inboxes, _ *int) {
		for n, forgotten := range []time.Duration{0, outbox.RememberedFor - 1, outbox.RememberedFor} {
			time.Sleep(KeptFor)
			s.Sweep(time.Now())
			time.Sleep(forgotten)
			x.env.Numbers.Sweep(time.Now())
			c := s.To("b")
			require.NoError(t, publish(x, c, answer{receivers: 1}))
			c.Release()
			x.wantSent(n, []uint64{1, 2, 1}[n], "m")
		}
		require.EqualValues(t, 2, x.counted.streams.Load())
	})
	test("have no members", func(_ *testing.T, _ *tester, s *Inboxes, _ *int) {
		b := &inbox{all: s}
		b.Deliver(item.Entry{})
		b.DeliverFrame(nil)
	})
}
