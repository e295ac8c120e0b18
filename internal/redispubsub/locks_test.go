package redispubsub

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/stretchr/testify/require"
)

var server = redistest.SharedServer(redistest.Options{})

// halting is a receiver whose Receive blocks for one channel.
type halting struct {
	silent
	channel string
	inside  chan struct{} // gets a value when it stands still
	goOn    chan struct{}
}

func (h *halting) Receive(channel string, _ []byte) {
	if channel == h.channel {
		h.inside <- struct{}{}
		<-h.goOn
	}
}

// A call that waits for a channel's receiver holds up nothing else: other
// channels on other connections continue.
func TestAReceiverThatStandsStill(t *testing.T) {
	const channel = "fanout:r:{still}"
	for name, wait := range map[string]func(e *Engine){
		"while its channel moves":          func(e *Engine) { e.place(e.sub(channel), "elsewhere:1") },
		"while its channel has no home":    func(e *Engine) { e.place(e.sub(channel), "") },
		"while its channel is left":        func(e *Engine) { e.Unsubscribe(context.Background(), channel) },
		"while its channel's link is lost": func(e *Engine) { e.sub(channel).home.Load().broke(io.EOF) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			client := &forgetful{Client: server(t).Client(t)}
			e, err := New(client, Config{Name: "test", ProbeInterval: -1})
			require.NoError(t, err)
			h := &halting{channel: channel, inside: make(chan struct{}, 1), goOn: make(chan struct{})}
			require.NoError(t, e.Attach(h))
			defer func() { require.NoError(t, e.Close(ctx)) }()
			require.NoError(t, e.Subscribe(ctx, channel))
			n, err := e.Publish(ctx, channel, []byte("hello"))
			require.NoError(t, err)
			require.Equal(t, 1, n)
			<-h.inside
			done := make(chan struct{})
			go func() {
				wait(e)
				close(done)
			}()
			defer func() { <-done }()
			defer close(h.goOn)
			asked := client.asked.Load()
			require.Eventually(t, func() bool { // rounds go on, which look at all channels
				e.topology.ask()
				return client.asked.Load() > asked+3
			}, 10*time.Second, time.Millisecond)
			e.Health()
			_, err = e.Publish(ctx, "fanout:r:{other}", []byte("hello"))
			require.NoError(t, err)
			impatient, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
			defer cancel()
			require.ErrorIs(t, e.Close(impatient), context.DeadlineExceeded)
		})
	}
}

// stuck is a log handler that blocks.
type stuck struct {
	slog.Handler
	goOn    chan struct{}
	entered atomic.Int32
}

func (s *stuck) Enabled(context.Context, slog.Level) bool { return true }
func (s *stuck) Handle(context.Context, slog.Record) error {
	s.entered.Add(1)
	<-s.goOn
	return nil
}

// A Logger that blocks holds up nothing: links come back.
func TestALoggerThatStandsStill(t *testing.T) {
	s := server(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	log := &stuck{goOn: make(chan struct{})}
	e, err := New(s.Client(t), Config{Name: "test", ProbeInterval: -1, Logger: slog.New(log)})
	require.NoError(t, err)
	require.NoError(t, e.Attach(silent{}))
	defer func() { require.NoError(t, e.Close(ctx)) }()
	defer close(log.goOn)
	const channel = "fanout:r:{log}"
	require.NoError(t, e.Subscribe(ctx, channel))
	for times := uint32(1); times <= 3; times++ {
		_, err := s.KillClients(ctx, "pubsub")
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			_, on, confirms := e.sub(channel).state()
			return on && confirms > times
		}, 5*time.Second, time.Millisecond)
	}
	require.EqualValues(t, 1, log.entered.Load())
}
