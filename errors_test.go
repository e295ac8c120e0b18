package fanout_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/require"
)

func TestErrorTexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		ended, cancel := context.WithCancel(ctx)
		cancel()
		soon, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		bus := memory.NewBus()
		h := newHub(t, bus, &fanout.Options{MaxMessage: 10, Room: roomOptions(map[string]fanout.RoomOptions{
			"kept": {Retain: fanout.Retention{Messages: 3}},
			"bad":  {Window: fanout.Window{Messages: -1}},
			"slow": {Window: fanout.Window{Messages: 1}, Overflow: fanout.Disconnect},
		})})
		m, foreign := connect(t, h, "kept"), connect(t, newHub(t, nil, nil))
		closed := newHub(t, nil, nil)
		lost := connect(t, closed)
		require.NoError(t, closed.Close(ctx))
		slow := connect(t, h, "slow")
		publish(t, h.Room("slow"), 1, 5)
		publish(t, h.Room("kept"), 1, 1)
		synctest.Wait() // all of it has arrived: slow is out of the window
		of, err := h.Room("kept").History(ctx, fanout.Position{}, 0)
		require.NoError(t, err)

		receive := func(m *fanout.Member, ctx context.Context) error { _, err := m.Receive(ctx); return err }
		history := func(h *fanout.Hub, room string, p fanout.Position, limit int) error {
			_, err := h.Room(room).History(ctx, p, limit)
			return err
		}
		_, newErr := fanout.New(nil, &fanout.Options{MaxMessage: -1})
		_, nilErr := fanout.New((*memory.Adapter)(nil), nil)
		_, connectErr := closed.Connect(nil)
		_, parseErr := fanout.ParsePosition("7")
		_, bufferErr := m.ReceiveBatch(ctx, nil)
		check := func(err, is error, text string) {
			t.Helper()
			require.ErrorIs(t, err, is)
			require.EqualError(t, err, text)
		}
		check(newErr, fanout.ErrInvalidOption, "fanout: new hub: invalid option: MaxMessage is -1, it must be 1 to 268435456")
		check(nilErr, fanout.ErrInvalidOption, "fanout: new hub: invalid option: the adapter is a nil *memory.Adapter; for a hub without one give New nil itself")
		check(connectErr, fanout.ErrClosed, "fanout: connect: closed")
		check(closed.Health(ctx), fanout.ErrClosed, "fanout: health: closed")
		check(parseErr, fanout.ErrInvalidPosition, `fanout: invalid position: "7" is not v1-epoch-offset, as in "v1-0-0" and as Position.String writes it`)

		check(receive(lost, ctx), fanout.ErrClosed, "fanout: receive: closed")
		check(receive(slow, ctx), fanout.ErrSlow, "fanout: receive: member too slow")
		check(receive(m, ended), context.Canceled, "fanout: receive: context canceled")
		require.EqualError(t, bufferErr, "fanout: receive: the buffer has no room for a message")

		check(h.Room("").Join(ctx, m), fanout.ErrInvalidRoom, `fanout: join room "": invalid room name: it is empty`)
		check(h.Room("x").Join(ctx, nil), fanout.ErrInvalidMember, `fanout: join room "x": invalid member: the member is nil`)
		check(h.Room("x").Leave(ctx, foreign), fanout.ErrInvalidMember, `fanout: leave room "x": invalid member: member `+foreign.ID()+` belongs to another hub`)
		check(h.Room("x").Join(ended, m), context.Canceled, `fanout: join room "x": context canceled`)
		check(h.Room("bad").Join(ctx, m), fanout.ErrInvalidOption, `fanout: join room "bad": invalid option: Room("bad"): Window.Messages is -1, it must be at least 1`)
		check(closed.Room("x").Join(ctx, lost), fanout.ErrClosed, `fanout: join room "x": closed`)
		check(h.Room("kept").Resume(ctx, m, of[0].Position), fanout.ErrJoined, `fanout: resume room "kept": member is in the room`)
		check(h.Room("x").Resume(ctx, m, fanout.Position{}), fanout.ErrNoHistory, `fanout: resume room "x": room keeps no history: Options.Room gives it no Retain`)
		check(history(h, "kept", fanout.Position{}, -1), fanout.ErrInvalidOption, `fanout: history of room "kept": invalid option: the limit is -1, it must be positive, or 0 for no limit`)
		check(history(h, "kept", fanout.Position{Offset: 7}, 0), fanout.ErrInvalidPosition, `fanout: history of room "kept": invalid position: v1-0-7 has an offset without an epoch`)
		check(history(closed, "kept", fanout.Position{}, 0), fanout.ErrClosed, `fanout: history of room "kept": closed`)

		long := strings.Repeat("x", 256)
		check(h.Room(long).Publish(ctx, nil), fanout.ErrInvalidRoom, `fanout: publish to room "`+long[:64]+`…": invalid room name: it is 256 bytes long, at most 255 are allowed (not sent)`)
		check(h.Room("x").Publish(ctx, make([]byte, 11)), fanout.ErrTooLarge, `fanout: publish to room "x": too large: 11 bytes, at most 10 are allowed (Options.MaxMessage) (not sent)`)
		check(h.Room("x").Publish(ended, nil), context.Canceled, `fanout: publish to room "x": context canceled (not sent)`)
		check(h.Room("bad").Publish(ctx, nil), fanout.ErrInvalidOption, `fanout: publish to room "bad": invalid option: Room("bad"): Window.Messages is -1, it must be at least 1 (not sent)`)
		check(closed.Room("lobby").Publish(ctx, nil), fanout.ErrUnsent, `fanout: publish to room "lobby": closed (not sent)`)
		check(closed.Room("lobby").PublishAsync(ctx, nil, nil), fanout.ErrClosed, `fanout: publish to room "lobby": closed (not sent)`)
		check(h.Room("lobby").PublishAsync(ended, nil, nil), context.Canceled, `fanout: publish to room "lobby": context canceled (not sent)`)
		check(h.In().Publish(ctx, nil), fanout.ErrEmptySelection, `fanout: publish: empty selection: In names no room (not sent)`)
		check(h.In("x", "").Publish(ctx, nil), fanout.ErrInvalidRoom, `fanout: publish: invalid room name "": it is empty (not sent)`)
		check(h.To("me").Publish(ctx, nil), fanout.ErrInvalidMember, `fanout: publish: invalid member: "me" is no member ID; Member.ID returns one (not sent)`)
		check(h.To("0123456789abcdef-1").Publish(ctx, nil), fanout.ErrNoReceiver, `fanout: publish to members of hub 0123456789abcdef: no hub listens for the member`)
		check(closed.Everyone().PublishAsync(ctx, nil, nil), fanout.ErrClosed, `fanout: publish: closed (not sent)`)

		bus.Cut()
		check(h.Room("x").Publish(soon, nil), fanout.ErrUnsent,
			`fanout: publish to room "x": context deadline exceeded (last: memory: publish to "fanout:r:{x}": link cut) (adapter: memory: 4 channels without a link: link cut) (not sent)`)
		bus.Heal()
		require.NoError(t, foreign.Close())
	})
}

func TestPublishErrorNamesEachPartThatFailed(t *testing.T) {
	h := newHub(t, memory.NewBus(), &fanout.Options{Room: roomOptions(map[string]fanout.RoomOptions{
		"b": {Window: fanout.Window{Messages: -1}}, "c": {Overflow: -1},
	})})
	err := h.In("a", "b", "c").Publish(within(t), []byte("1"))
	require.NotErrorIs(t, err, fanout.ErrUnsent, "a has got it")
	var parts interface{ Unwrap() []error }
	require.ErrorAs(t, err, &parts)
	var rooms []string
	for _, part := range parts.Unwrap() {
		var p *fanout.PublishError
		require.ErrorAs(t, part, &p)
		require.ErrorIs(t, p.Err, fanout.ErrUnsent, "room %s has not", p.Room)
		rooms = append(rooms, p.Room)
	}
	require.Equal(t, []string{"b", "c"}, rooms)
	require.False(t, errors.Is(h.In("a").Publish(within(t), nil), fanout.ErrUnsent))
}
