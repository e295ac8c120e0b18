package nats_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/nats"
	client "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// Each publishes to a channel of its own and waits for the server, as 64 rooms
// do that are spoken to at the same time.
func BenchmarkPublish(b *testing.B) {
	f := startFleet(b, 1, nil)
	frame := make([]byte, 128)
	b.Run("adapter", func(b *testing.B) {
		a := benchmarked(b, f)
		inRooms(b, func(room string) error {
			_, err := a.Publish(b.Context(), room, frame)
			return err
		})
	})
	b.Run("client, with a flush each", func(b *testing.B) {
		nc, err := client.Connect("nats://" + f.addr(0))
		require.NoError(b, err)
		defer nc.Close()
		inRooms(b, func(room string) error {
			if err := nc.Publish("bench."+room, frame); err != nil {
				return err
			}
			return nc.Flush()
		})
	})
}

func BenchmarkAppend(b *testing.B) {
	a := benchmarked(b, startFleet(b, 1, nil))
	frame := make([]byte, 128)
	inRooms(b, func(room string) error {
		_, _, err := a.Append(b.Context(), room, adapter.Record{
			Frame: frame, Messages: 1, Time: time.Now(), Keep: adapter.Retention{Messages: 100, Age: time.Hour},
		})
		return err
	})
}

func benchmarked(b *testing.B, f *fleet) *nats.Adapter {
	a := newAdapter(b, f.addr(0), nats.Options{})
	require.NoError(b, a.Attach(deaf{}))
	b.Cleanup(func() { require.NoError(b, a.Close(context.Background())) })
	require.Eventually(b, func() bool { return a.Health() == nil }, 10*time.Second, time.Millisecond)
	return a
}

func inRooms(b *testing.B, f func(room string) error) {
	var rooms atomic.Int64
	b.SetParallelism(32) // times GOMAXPROCS
	b.RunParallel(func(pb *testing.PB) {
		room := fmt.Sprint("room", rooms.Add(1))
		for pb.Next() {
			if err := f(room); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
