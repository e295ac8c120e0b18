package nats_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/nats"
	"github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// A deaf receiver hears nothing.
type deaf struct{}

func (deaf) Receive(string, []byte)                {}
func (deaf) ReceiveKept(string, adapter.KeptFrame) {}
func (deaf) Interrupted(string)                    {}
func (deaf) Moving(string)                         {}
func (deaf) Restored(string)                       {}

func attached(t *testing.T, a *nats.Adapter) *nats.Adapter {
	require.NoError(t, a.Attach(deaf{}))
	t.Cleanup(func() { require.NoError(t, a.Close(context.Background())) })
	return a
}

func record(frame string) adapter.Record {
	return adapter.Record{Frame: []byte(frame), Messages: 1, Time: time.Now(), Keep: adapter.Retention{Messages: 10, Age: time.Hour}}
}

// connected waits until an adapter can publish.
func connected(t *testing.T, a *nats.Adapter) {
	require.Eventually(t, func() bool { return a.Health() == nil }, 10*time.Second, time.Millisecond)
}

// Histories can be used from the moment that the adapter is attached, as soon
// as it can connect. If it cannot, that is told soon.
func TestFirstConnection(t *testing.T) {
	use := func(t *testing.T, addr string) (read, kept error) {
		a := attached(t, newAdapter(t, addr, nats.Options{}))
		_, read = a.History(within(t), "room", adapter.Query{Limit: 1, Keep: record("").Keep, Time: time.Now()})
		b := attached(t, newAdapter(t, addr, nats.Options{}))
		_, _, kept = b.Append(within(t), "room", record("frame"))
		return read, kept
	}
	t.Run("is waited for", func(t *testing.T) {
		read, kept := use(t, startFleet(t, 1, nil).addr(0))
		require.NoError(t, read)
		require.NoError(t, kept)
	})
	t.Run("that fails is told", func(t *testing.T) {
		read, kept := use(t, fmt.Sprint("127.0.0.1:", freePorts(t, 1)[0]))
		require.ErrorContains(t, read, "not connected")
		require.ErrorContains(t, kept, "not connected")
		require.ErrorIs(t, kept, adapter.ErrUnsent)
	})
}

func TestRefusals(t *testing.T) {
	t.Run("without JetStream there is no history", func(t *testing.T) {
		f := startFleet(t, 1, func(o *server.Options) { o.JetStream = false })
		a := attached(t, newAdapter(t, f.addr(0), nats.Options{}))
		connected(t, a)
		_, _, err := a.Append(within(t), "room", record("frame"))
		require.ErrorIs(t, err, adapter.ErrRefused)
		require.ErrorIs(t, err, adapter.ErrUnsent)
		require.ErrorContains(t, err, "no JetStream")
		_, err = a.History(within(t), "room", adapter.Query{Limit: 1, Keep: record("").Keep})
		require.ErrorIs(t, err, adapter.ErrRefused)
		_, err = a.Publish(within(t), "room", []byte("frame"))
		require.NoError(t, err)
	})
	t.Run("a frame that the server would not take is not sent", func(t *testing.T) {
		f := startFleet(t, 1, func(o *server.Options) { o.MaxPayload = 10_000 })
		a := attached(t, newAdapter(t, f.addr(0), nats.Options{}))
		connected(t, a)
		long := strings.Repeat("x", 10_000)
		_, err := a.Publish(within(t), "room", []byte(long))
		require.ErrorIs(t, err, adapter.ErrRefused)
		require.ErrorIs(t, err, adapter.ErrUnsent)
		require.ErrorContains(t, err, "max_payload, which is 10000")
		_, _, err = a.Append(within(t), "room", record(long))
		require.ErrorIs(t, err, adapter.ErrRefused)
		require.ErrorIs(t, err, adapter.ErrUnsent)
	})
	for name, denied := range map[string]*server.Permissions{
		"publish":   {Publish: &server.SubjectPermission{Deny: []string{"fanout.p.*", "$JS.API.>"}}},
		"subscribe": {Subscribe: &server.SubjectPermission{Deny: []string{"fanout.p.*"}}},
		"all":       {Publish: &server.SubjectPermission{Deny: []string{"fanout.>"}}, Subscribe: &server.SubjectPermission{Deny: []string{"fanout.>"}}},
	} {
		t.Run("without the permission to "+name, func(t *testing.T) {
			f := startFleet(t, 1, func(o *server.Options) {
				o.Users = []*server.User{{Username: "me", Password: "secret", Permissions: denied}}
			})
			a := attached(t, newAdapter(t, f.addr(0), nats.Options{Connect: []client.Option{client.UserInfo("me", "secret")}}))
			connected(t, a)
			_, publish := a.Publish(within(t), "room", []byte("frame"))
			subscribe := a.Subscribe(within(t), "room")
			if name == "subscribe" {
				require.NoError(t, publish)
			} else {
				require.ErrorIs(t, publish, adapter.ErrRefused)
			}
			if name == "publish" {
				require.NoError(t, subscribe)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, _, err := a.Append(ctx, "room", record("frame"))
				require.ErrorIs(t, err, adapter.ErrRefused)
			} else {
				require.ErrorIs(t, subscribe, adapter.ErrRefused)
			}
		})
	}
	t.Run("a wrong password is tried again, and Health says so", func(t *testing.T) {
		f := startFleet(t, 1, func(o *server.Options) {
			o.Users = []*server.User{{Username: "me", Password: "secret"}}
		})
		a := attached(t, newAdapter(t, f.addr(0), nats.Options{Connect: []client.Option{client.UserInfo("me", "wrong")}}))
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		err := a.Subscribe(ctx, "room")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "uthorization")
		require.ErrorContains(t, a.Health(), "uthorization")
		_, err = a.Publish(t.Context(), "room", []byte("frame"))
		require.ErrorIs(t, err, adapter.ErrUnsent)
	})
	t.Run("hubs with other partitions say so", func(t *testing.T) {
		f := startFleet(t, 1, nil)
		a := attached(t, newAdapter(t, f.addr(0), nats.Options{}))
		b := attached(t, newAdapter(t, f.addr(0), nats.Options{Partitions: 32}))
		for _, n := range []*nats.Adapter{a, b} {
			f.until("it says so", func() bool { return n.Health() != nil && strings.Contains(n.Health().Error(), "partitions") })
		}
	})
}

func TestOptions(t *testing.T) {
	for _, o := range []nats.Options{
		{Prefix: "a b"}, {Prefix: "a..b"}, {Prefix: "a.>"}, {Partitions: -1}, {Partitions: 1025}, {Replicas: 2}, {PingInterval: -1},
	} {
		_, err := nats.New("nats://127.0.0.1:1", &o)
		require.ErrorIs(t, err, adapter.ErrInvalidOption)
	}
	_, err := nats.New("nats://127.0.0.1:1", nil)
	require.NoError(t, err)
}

// A stream that was deleted, or put back from an earlier copy, is another one.
func TestLostStream(t *testing.T) {
	f := startFleet(t, 1, nil)
	a := attached(t, newAdapter(t, f.addr(0), nats.Options{}))
	connected(t, a)
	before, _, err := a.Append(within(t), "room", record("before"))
	require.NoError(t, err)
	require.Equal(t, uint64(1), before.Offset)

	nc, err := client.Connect("nats://" + f.addr(0))
	require.NoError(t, err)
	defer nc.Close()
	_, err = nc.RequestWithContext(within(t), "$JS.API.STREAM.DELETE."+streamOf("room"), nil)
	require.NoError(t, err)

	var after adapter.Position
	require.Eventually(t, func() bool {
		after, _, err = a.Append(within(t), "room", record("after"))
		return err == nil
	}, 10*time.Second, 10*time.Millisecond)
	require.Greater(t, after.Epoch, before.Epoch)
	page, err := a.History(within(t), "room", adapter.Query{Limit: 10, Keep: record("").Keep})
	require.NoError(t, err)
	require.Equal(t, after, page.Head)
	require.Len(t, page.Frames, 1)
}

// What a room no longer needs is removed from its stream.
func TestTrim(t *testing.T) {
	f := startFleet(t, 1, nil)
	a := attached(t, newAdapter(t, f.addr(0), nats.Options{}))
	connected(t, a)
	nc, err := client.Connect("nats://" + f.addr(0))
	require.NoError(t, err)
	defer nc.Close()
	js, err := nc.JetStream()
	require.NoError(t, err)
	kept := func() uint64 {
		info, err := js.StreamInfo(streamOf("room"))
		require.NoError(t, err)
		return info.State.Msgs
	}
	r := record("frame")
	r.Keep.Age = time.Second
	for range 200 {
		_, _, err := a.Append(within(t), "room", r)
		require.NoError(t, err)
	}
	f.until("there are few more than ten", func() bool { return kept() <= 10+32 })
	require.Eventually(t, func() bool {
		_, _, err := a.Append(within(t), "room", r)
		require.NoError(t, err)
		return kept() < 8
	}, 20*time.Second, 300*time.Millisecond, "those that are too old go")
}
