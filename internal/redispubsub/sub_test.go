package redispubsub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"unsafe"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// word is a receiver that records its calls: f for a frame, i for Interrupted,
// m for Moving, r for Restored.
type word string

func (w *word) Receive(string, []byte)                { *w += "f" }
func (w *word) ReceiveKept(string, adapter.KeptFrame) { *w += "f" }
func (w *word) Interrupted(string)                    { *w += "i" }
func (w *word) Moving(string)                         { *w += "m" }
func (w *word) Restored(string)                       { *w += "r" }

// subscribed makes a link's server confirm the subscription of s.
func subscribed(l *link, s *sub) {
	l.seats.Want(s, s.channel, s.slot)
	l.seats.Next()
	l.seats.Confirmed(s.channel)
}

// The reader of a connection notes a confirmation, and the connection breaks
// before it has told the sub.
func TestAConfirmationThatALossOvertakes(t *testing.T) {
	told := new(word)
	e := &Engine{receiver: told}
	l, s := newLink(e, linkKey{}), &sub{engine: e, wanted: true}
	s.home.Store(l)
	subscribed(l, s)
	s.confirm(l, nil)
	require.True(t, s.on())

	l.broke(io.EOF)
	subscribed(l, s)
	l.broke(io.EOF)
	s.confirm(l, nil)
	require.False(t, s.on(), "nothing is subscribed")
	require.Equal(t, "i", string(*told))

	ses := new(session)
	l.live = ses
	subscribed(l, s)
	s.confirm(l, nil) // of an earlier session
	require.False(t, s.on())
	s.confirm(l, ses)
	require.True(t, s.on())
	require.Equal(t, "ir", string(*told))
}

func TestWhatIsToldWhenTheHomeMoves(t *testing.T) {
	from, to := newLink(nil, linkKey{}), newLink(nil, linkKey{})
	tests := []struct {
		want   string
		before func(s *sub)
	}{
		{"mr", func(s *sub) { s.lost(from, true); s.move(to) }},
		{"mir", func(s *sub) { s.lost(from, true); s.lost(from, false); s.move(to) }},
		{"mir", func(s *sub) { s.lost(from, true); s.move(to); s.lost(to, false); s.lost(to, false) }},
		{"mr", func(s *sub) { s.lost(from, true); s.move(to); s.lost(from, false) }},
		{"ir", func(s *sub) { s.move(to); s.lost(to, false) }},
		{"ir", func(s *sub) { s.lost(from, false); s.lost(from, true); s.move(to) }},
		{"mrmr", func(s *sub) { s.lost(from, true); s.move(to); s.confirm(to, nil); s.lost(to, true) }},
	}
	for _, test := range tests {
		told := new(word)
		s := &sub{engine: &Engine{receiver: told, keeper: told}, wanted: true}
		s.home.Store(from)
		subscribed(from, s)
		subscribed(to, s)
		s.confirm(from, nil)
		test.before(s)
		s.confirm(to, nil)
		require.Equal(t, test.want, string(*told))
	}

	// Before the subscription was confirmed there is nothing to tell.
	told := new(word)
	s := &sub{engine: &Engine{receiver: told, keeper: told}, wanted: true}
	s.home.Store(from)
	s.lost(from, false)
	s.lost(from, true)
	require.Empty(t, string(*told))
}

// A frame that a hub has sent late is not delivered after later ones. A frame
// that a server has published is always delivered, since it may begin a new
// history.
func TestLateFrames(t *testing.T) {
	home := newLink(nil, linkKey{})
	for _, c := range []struct {
		name, want string
		payloads   [][]byte
	}{
		{"the first of all", "f", [][]byte{wire.AppendLate(nil, 7, 5, []byte("x"))}},
		{"in its place", "ff", [][]byte{wire.AppendKept(nil, 7, 4, []byte("x")), wire.AppendLate(nil, 7, 5, []byte("x"))}},
		{"after a later one", "f", [][]byte{wire.AppendKept(nil, 7, 6, []byte("x")), wire.AppendLate(nil, 7, 5, []byte("x"))}},
		{"twice", "f", [][]byte{wire.AppendLate(nil, 7, 5, []byte("x")), wire.AppendLate(nil, 7, 5, []byte("x"))}},
		{"of an earlier epoch", "f", [][]byte{wire.AppendKept(nil, 7, 6, []byte("x")), wire.AppendLate(nil, 6, 9, []byte("x"))}},
		{"of a server, after a later one", "ff", [][]byte{wire.AppendKept(nil, 7, 6, []byte("x")), wire.AppendKept(nil, 7, 5, []byte("x"))}},
	} {
		told := new(word)
		s := &sub{engine: &Engine{receiver: told, keeper: told}, wanted: true}
		s.home.Store(home)
		subscribed(home, s)
		s.confirm(home, nil)
		for _, payload := range c.payloads {
			s.deliver(home, payload)
		}
		require.Equal(t, c.want, string(*told), c.name)
	}
}

// A frame that a node has accepted once may have arrived, whatever the second
// attempt returns.
func TestSendingAgainIsNeverUnsent(t *testing.T) {
	e := &Engine{cfg: Config{Name: "test"}}
	for _, err := range []error{
		rueidis.ErrNoSlot,
		&net.OpError{Op: "dial", Err: errSilent},
		fmt.Errorf("%w: %w", errSilent, adapter.ErrUnsent),
		rueidis.ErrClosing,
	} {
		require.ErrorIs(t, e.classify("publish", err), adapter.ErrUnsent)
		require.NotErrorIs(t, e.again(err), adapter.ErrUnsent)
		require.Equal(t, errors.Is(e.classify("publish", err), adapter.ErrRefused), errors.Is(e.again(err), adapter.ErrRefused))
	}
}

// A Publish that fails because the engine closes returns ErrClosed, not the
// error of a context that the caller does not know.
func TestPublishWhileTheEngineClosesIsErrClosed(t *testing.T) {
	e := newEngine(t, redistest.NewServer(t, redistest.Options{}).Client(t), -1)
	e.mu.Lock()
	for i := range 10_000 { // so that it takes a while
		channel := fmt.Sprint("channel", i)
		e.subs[channel] = &sub{engine: e, channel: channel, wanted: true}
	}
	e.mu.Unlock()
	published := make(chan error)
	go func() {
		<-e.ctx.Done()
		_, err := e.Publish(context.Background(), "channel", nil)
		published <- err
	}()
	require.NoError(t, e.Close(context.Background()))
	err := <-published
	require.ErrorIs(t, err, adapter.ErrClosed)
	require.ErrorIs(t, err, adapter.ErrUnsent)
}

// A hub has a sub for each room that is in use.
func TestSizeOfASub(t *testing.T) {
	require.LessOrEqual(t, unsafe.Sizeof(sub{}), uintptr(112))
}
