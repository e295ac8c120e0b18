package redis_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

// A hub that publishes with fields which this release does not know, through
// Redis, into rooms with and without a history.
func TestFieldsOfALaterReleaseThroughRedis(t *testing.T) {
	client := server(t).Client(t)
	a, err := newAdapter(client)
	require.NoError(t, err)
	keep := fanout.Retention{Messages: 100, Age: time.Hour}
	h, err := fanout.New(a, &fanout.Options{Room: func(name string) fanout.RoomOptions {
		if name == "later plain" {
			return fanout.RoomOptions{}
		}
		return fanout.RoomOptions{Retain: keep}
	}})
	require.NoError(t, err)
	defer h.Close(context.Background())
	foreign, err := newAdapter(client)
	require.NoError(t, err)
	require.NoError(t, foreign.Attach(nobody{}))
	defer foreign.Close(context.Background())

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	hears := func(m *fanout.Member, n int) (got []string) {
		for range n {
			msg, err := m.Receive(ctx)
			if gap := new(fanout.GapError); errors.As(err, &gap) {
				got = append(got, fmt.Sprintf("gap %d %v", gap.Missed, gap.Unknown))
				continue
			}
			require.NoError(t, err)
			got = append(got, string(msg.Data))
		}
		return got
	}
	skip := wire.AppendField(nil, wire.Field{Number: 4000, Value: []byte("later")})
	must := wire.AppendField(nil, wire.Field{Number: 4001, Must: true})
	frame := wire.AppendHeader(nil, &wire.Header{Hub: 99, Stream: 1, Seq: 1, Count: 4, Time: uint64(time.Now().UnixMilli()), Fields: skip})
	for text, fields := range []wire.Fields{skip, nil, must, skip} {
		frame = wire.AppendMessage(frame, &wire.Message{Fields: fields, Data: fmt.Append(nil, text)})
	}
	want := []string{"0", "1", "gap 1 false", "3"}

	m, err := h.Connect(nil)
	require.NoError(t, err)
	require.NoError(t, h.Room("later plain").Join(ctx, m))
	require.NoError(t, h.Room("later kept").Join(ctx, m))
	_, err = foreign.Publish(ctx, "fanout:r:{later plain}", frame)
	require.NoError(t, err)
	require.Equal(t, want, hears(m, 4))
	_, _, err = foreign.(adapter.Historian).Append(ctx, "fanout:r:{later kept}", adapter.Record{
		Frame: frame, Messages: 4, Time: time.Now(), Keep: keep, Publisher: "later", Stream: 1, Seq: 1,
	})
	require.NoError(t, err)
	require.Equal(t, want, hears(m, 4))

	again, err := h.Connect(nil)
	require.NoError(t, err)
	require.NoError(t, h.Room("later kept").Resume(ctx, again, fanout.Position{}))
	require.Equal(t, want, hears(again, 4))
	require.Zero(t, h.Stats().Malformed)

	// Hubs hear of each other through Redis.
	require.Equal(t, 2, h.Stats().Hubs, "the one whose frames came counts as well")
	b, err := newAdapter(client)
	require.NoError(t, err)
	other, err := fanout.New(b, nil)
	require.NoError(t, err)
	defer other.Close(context.Background())
	require.Eventually(t, func() bool { return h.Stats().Hubs == 3 && other.Stats().Hubs == 2 }, 20*time.Second, 10*time.Millisecond)
}

type nobody struct{}

func (nobody) Receive(string, []byte) {}
func (nobody) Interrupted(string)     {}
func (nobody) Restored(string)        {}
