package fanout_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

func TestRoomLingersAndIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		h := newHub(t, bus, &fanout.Options{Linger: time.Minute})
		m := connect(t, h, "x")
		require.NoError(t, h.Room("x").Leave(t.Context(), m))
		time.Sleep(59 * time.Second)
		require.Equal(t, 1, bus.Subscribers("fanout:r:{x}"), "it lingers")
		require.NoError(t, h.Room("x").Join(within(t), m))
		require.NoError(t, h.Room("x").Leave(t.Context(), m))
		time.Sleep(59 * time.Second)
		synctest.Wait()
		require.Equal(t, 1, bus.Subscribers("fanout:r:{x}"), "anew")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Equal(t, 0, bus.Subscribers("fanout:r:{x}"))
		time.Sleep(time.Minute)
		require.Zero(t, h.Stats().Rooms)
	})
}

func TestRoomThatIsOnlyPublishedToIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		a, b := newHub(t, bus, nil), newHub(t, bus, nil)
		m := connect(t, b, "x")
		for n := range 5 {
			publish(t, a.Room("x"), n, n)
			time.Sleep(time.Minute)
			require.Zero(t, a.Stats().Rooms)
		}
		require.Equal(t, numbers(0, 4), receive(t, m, 5), "beginning anew is no gap")
	})
}

// Messages lost between two streams of a publisher are counted, too.
func TestLossBeforeANewStreamIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		a, b := newHub(t, bus, nil), newHub(t, bus, nil)
		m := connect(t, b, "x")
		publish(t, a.Room("x"), 1, 1)
		time.Sleep(time.Minute) // a has forgotten the room
		bus.DropNext(2)
		publish(t, a.Room("x"), 2, 4)
		require.Equal(t, []string{"1", "gap 2", "4"}, receive(t, m, 3))
	})
}

func TestJoinsShareOneSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		node := bus.NewAdapter()
		h := newHubOn(t, node, nil)
		first, second := connect(t, h), connect(t, h)
		synctest.Wait()
		node.Cut()
		impatient, cancel := context.WithCancel(t.Context())
		results := make(chan error, 2)
		go func() { results <- h.Room("x").Join(impatient, first) }()
		synctest.Wait()
		go func() { results <- h.Room("x").Join(within(t), second) }()
		synctest.Wait()
		cancel() // the one who made the call for both
		require.ErrorIs(t, <-results, context.Canceled)
		synctest.Wait()
		require.Empty(t, results)
		node.Heal()
		require.NoError(t, <-results)
		require.Empty(t, first.Rooms())
		require.Equal(t, []string{"x"}, second.Rooms())
	})
}

func TestLeaveOvertakesAJoinThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		h := newHub(t, bus, nil)
		m := connect(t, h, "other")
		synctest.Wait()
		bus.Cut()
		results := make(chan error, 2)
		for range 2 {
			go func() { results <- h.Room("x").Join(within(t), m) }()
			synctest.Wait()
		}
		require.NoError(t, h.Room("x").Leave(t.Context(), m))
		require.ErrorIs(t, <-results, fanout.ErrLeft)
		bus.Heal()
		require.ErrorIs(t, <-results, fanout.ErrLeft)
		require.Equal(t, []string{"other"}, m.Rooms())
		require.NoError(t, h.Room("x").Join(within(t), m))
		require.ElementsMatch(t, []string{"other", "x"}, m.Rooms())
	})
}

func TestJoinEndsWithItsMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		h := newHub(t, bus, nil)
		m, other := connect(t, h, "other"), connect(t, h, "other")
		bus.Cut()
		joined, joins := make(chan error, 1), make(chan error, 1)
		go func() { joined <- h.Room("x").Join(context.Background(), m) }()
		synctest.Wait()
		go func() { joins <- h.Room("x").Join(context.Background(), other) }()
		synctest.Wait()
		m.Close()
		require.ErrorIs(t, <-joined, fanout.ErrClosed)
		bus.Heal()
		require.NoError(t, <-joins, "who waited behind it goes on")
	})
}

// Messages of a hub whose clock is wrong are delivered.
func TestClocksMayDiffer(t *testing.T) {
	bus := memory.NewBus()
	h := newHub(t, bus, nil)
	m := connect(t, h, "x")
	publish(t, h.Room("x"), 1, 1)
	playHub(t, bus, "x")(1, time.Now().Add(-time.Hour), "2")
	publish(t, h.Room("x"), 3, 3)
	require.Equal(t, numbers(1, 3), receive(t, m, 3))
}

// Absurd numbers are not counted, but what lies between may be missing.
func TestAbsurdNumbersAreUnknown(t *testing.T) {
	bus := memory.NewBus()
	h := newHub(t, bus, nil)
	m := connect(t, h, "x")
	say := playHub(t, bus, "x")
	say(1, time.Now(), "1")
	say(1<<63+10, time.Now(), "2")
	require.Equal(t, []string{"1", "gap 0+", "2"}, receive(t, m, 3))
	require.Zero(t, h.Stats().Missed)
}

// playHub returns a function that publishes frames of a hub that there is not.
func playHub(t *testing.T, bus *memory.Bus, room string) func(seq uint64, at time.Time, text string) {
	publisher := bus.NewAdapter()
	t.Cleanup(func() { publisher.Close(context.Background()) })
	return func(seq uint64, at time.Time, text string) {
		head := wire.Header{Hub: 7, Time: uint64(at.UnixMilli()), Stream: 1, Seq: seq, Count: 1}
		frame := wire.AppendMessage(wire.AppendHeader(nil, &head), &wire.Message{Data: []byte(text)})
		_, err := publisher.Publish(t.Context(), "fanout:r:{"+room+"}", frame)
		require.NoError(t, err)
	}
}

func TestARefusedSubscriptionIsAnErrorAtOnce(t *testing.T) {
	h := newHubOn(t, refusing{memory.NewBus().NewAdapter()}, nil)
	m, err := h.Connect(nil)
	require.NoError(t, err)
	require.ErrorIs(t, h.Room("x").Join(within(t), m), fanout.ErrRefused)
	require.ErrorIs(t, h.Health(within(t)), fanout.ErrRefused)
}

type refusing struct{ *memory.Adapter }

func (refusing) Subscribe(context.Context, string) error { return fanout.ErrRefused }

func TestStrangersMessageIsDeliveredAsItIs(t *testing.T) {
	bus := memory.NewBus()
	h := newHub(t, bus, nil)
	m := connect(t, h, "방")
	stranger := bus.NewAdapter()
	defer stranger.Close(context.Background())
	_, err := stranger.Publish(within(t), "fanout:r:{방}", []byte("from redis-cli"))
	require.NoError(t, err)
	msg, err := m.Receive(within(t))
	require.NoError(t, err)
	require.Equal(t, fanout.Message{Room: "방", Data: []byte("from redis-cli")}, msg)
	publish(t, h.Room("방"), 1, 1)
	msg, err = m.Receive(within(t))
	require.NoError(t, err)
	require.Equal(t, h.ID(), msg.Sender)
}

func TestMalformedFrameIsAGap(t *testing.T) {
	bus := memory.NewBus()
	h := newHub(t, bus, nil)
	m := connect(t, h, "x")
	stranger := bus.NewAdapter()
	defer stranger.Close(context.Background())
	for _, frame := range []string{"\xfafo", "\xfafo\x02\x01\x00......................", "\xfafo\x01\x01\x000000000011111111\x01\x01\xff\xff\xff\xff\x0f"} {
		_, err := stranger.Publish(within(t), "fanout:r:{x}", []byte(frame))
		require.NoError(t, err)
		_, err = stranger.Publish(within(t), "fanout:a:{everyone}", []byte(frame))
		require.NoError(t, err)
		_, err = stranger.Publish(within(t), "fanout:i:{"+h.ID()+"}", []byte(frame))
		require.NoError(t, err)
		require.Equal(t, []string{"gap 0+"}, receive(t, m, 1))
	}
	publish(t, h.Room("x"), 1, 1)
	require.Equal(t, []string{"1"}, receive(t, m, 1))
	require.NoError(t, h.Health(within(t)))
	require.EqualValues(t, 9, h.Stats().Malformed)
}

func TestPrefixSeparatesApplications(t *testing.T) {
	bus := memory.NewBus()
	a, b := newHub(t, bus, &fanout.Options{Prefix: "one"}), newHub(t, bus, &fanout.Options{Prefix: "two"})
	m := connect(t, b, "x")
	publish(t, a.Room("x"), 1, 1)
	require.NoError(t, a.Everyone().Publish(within(t), []byte("1")))
	publish(t, b.Room("x"), 2, 2)
	require.Equal(t, numbers(2, 2), receive(t, m, 1))
	require.Equal(t, 1, bus.Subscribers("two:r:{x}"))
}

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		node := bus.NewAdapter()
		h := newHubOn(t, node, nil)
		require.NoError(t, h.Health(within(t)))
		node.Cut()
		require.ErrorIs(t, h.Health(within(t)), memory.ErrCut)
		node.Heal()
		require.NoError(t, h.Health(within(t)))

		bus.DropNext(1) // the adapter knows nothing of it
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.Error(t, h.Health(ctx))
		require.NoError(t, h.Health(within(t)))
	})
}

func TestManyPublishersOfARoomShareFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		a := newHub(t, bus, nil)
		b := newHub(t, bus, &fanout.Options{Window: fanout.Window{Messages: 300}})
		m := connect(t, b, "x")
		hold := make(chan struct{})
		bus.Intercept(func(context.Context, memory.Frame) memory.Fate {
			<-hold
			return memory.Fate{}
		})
		errs := make(chan error, 300)
		for range 300 { // 450 bytes each
			go func() { errs <- a.Room("x").Publish(context.Background(), make([]byte, 450)) }()
		}
		synctest.Wait()
		close(hold)
		for range 300 {
			require.NoError(t, <-errs)
		}
		require.Len(t, receive(t, m, 300), 300)
		require.LessOrEqual(t, a.Stats().Frames, uint64(6), "300 messages, a few frames")
		require.EqualValues(t, 300, a.Stats().Published)
	})
}

func TestCallerMayReuseItsBuffer(t *testing.T) {
	h := newHub(t, nil, nil)
	m := connect(t, h, "x")
	buf := []byte("first")
	require.NoError(t, h.Room("x").Publish(context.Background(), buf))
	require.NoError(t, h.In("x").Local().Publish(context.Background(), buf))
	require.NoError(t, h.To(m.ID()).Publish(context.Background(), buf))
	copy(buf, "-----")
	require.Equal(t, []string{"first", "first", "first"}, receive(t, m, 3))
}

func TestCloseGivesUpPublishesWhenItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		h := newHub(t, bus, nil)
		connect(t, h, "x")
		bus.Cut()
		sent := make(chan error, 2)
		own, stop := context.WithCancel(t.Context())
		defer stop()
		for i, ctx := range []context.Context{context.Background(), own} {
			go func() { sent <- h.Room(fmt.Sprint("room ", i)).Publish(ctx, nil) }()
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		require.ErrorIs(t, h.Close(ctx), context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(start))
		for range 2 {
			require.ErrorIs(t, <-sent, fanout.ErrClosed)
		}
		require.NoError(t, h.Close(within(t)))
	})
}
