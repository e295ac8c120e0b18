package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/require"
)

func TestExcludedMembersAndRoomsDoNotGetIt(t *testing.T) {
	bus := memory.NewBus()
	a, b := newHub(t, bus, nil), newHub(t, bus, nil)
	ann, bob, cat := connect(t, a, "x"), connect(t, b, "x"), connect(t, b, "x", "quiet")
	ctx := within(t)
	require.NoError(t, a.In("x").Except(bob.ID()).ExceptRooms("quiet").Publish(ctx, []byte("1")))
	require.NoError(t, a.Everyone().Except(ann.ID()).ExceptRooms("quiet").Publish(ctx, []byte("2")))
	require.NoError(t, a.To(ann.ID(), bob.ID(), cat.ID()).ExceptRooms("quiet").Except(ann.ID()).Publish(ctx, []byte("3")))
	for _, m := range []*fanout.Member{ann, bob, cat} {
		require.NoError(t, a.To(m.ID()).Publish(ctx, []byte("end")))
	}
	publish(t, a.Room("x"), 9, 9)
	require.ElementsMatch(t, []string{"1", "end", "9"}, receive(t, ann, 3))
	require.ElementsMatch(t, []string{"2", "3", "end", "9"}, receive(t, bob, 4))
	require.ElementsMatch(t, []string{"end", "9"}, receive(t, cat, 2))
}

// A room is left out as it is when the message arrives, not when it is read.
func TestExceptRoomsMeansTheMembersAtArrival(t *testing.T) {
	h := newHub(t, nil, nil)
	m := connect(t, h, "x", "quiet")
	require.NoError(t, h.In("x").ExceptRooms("quiet").Publish(within(t), []byte("1")))
	require.NoError(t, h.Room("quiet").Leave(t.Context(), m))
	require.NoError(t, h.In("x").ExceptRooms("quiet").Publish(within(t), []byte("2")))
	require.NoError(t, h.Room("quiet").Join(within(t), m))
	require.Equal(t, []string{"2"}, receive(t, m, 1))
}

func TestDirectMessagesGoToTheHubThatHoldsTheMember(t *testing.T) {
	bus := memory.NewBus()
	a, b, c := newHub(t, bus, nil), newHub(t, bus, nil), newHub(t, bus, nil)
	m, n := connect(t, b, "x"), connect(t, c, "x")
	before := c.Stats().Received
	for i := range 10 {
		require.NoError(t, a.To(m.ID()).Publish(within(t), fmt.Append(nil, i)))
	}
	require.Equal(t, numbers(0, 9), receive(t, m, 10))
	require.Equal(t, before, c.Stats().Received, "another hub is not bothered")
	// Leaving every room does not touch direct messages.
	require.NoError(t, b.Room("x").Leave(t.Context(), m))
	require.NoError(t, a.To(m.ID(), n.ID(), m.ID()).Publish(within(t), []byte("both")))
	require.Equal(t, []string{"both"}, receive(t, m, 1))
	require.Equal(t, []string{"both"}, receive(t, n, 1))
	// A room that is called like a member is a room.
	require.NoError(t, a.Room(m.ID()).Publish(within(t), []byte("room")))
	require.NoError(t, a.To(m.ID()).Publish(within(t), []byte("end")))
	require.Equal(t, []string{"end"}, receive(t, m, 1))
}

func TestMessageToAHubThatIsGone(t *testing.T) {
	bus := memory.NewBus()
	a, b := newHub(t, bus, nil), newHub(t, bus, nil)
	m := connect(t, b, "x")
	require.NoError(t, m.Close())
	require.NoError(t, a.To(m.ID()).Publish(within(t), []byte("x")), "its hub lives")
	require.NoError(t, b.Close(within(t)))
	require.ErrorIs(t, a.To(m.ID()).Publish(within(t), []byte("x")), fanout.ErrNoReceiver)
}

func TestLocalStaysOnTheHub(t *testing.T) {
	bus := memory.NewBus()
	a, b := newHub(t, bus, nil), newHub(t, bus, nil)
	near, far := connect(t, a, "x", "y"), connect(t, b, "x", "y")
	ctx := within(t)
	require.NoError(t, a.In("x", "y").Local().Publish(ctx, []byte("1")))
	require.NoError(t, a.Everyone().Local().Publish(ctx, []byte("2")))
	require.NoError(t, a.To(near.ID(), far.ID()).Local().Publish(ctx, []byte("3")))
	publish(t, a.Room("x"), 9, 9)
	require.ElementsMatch(t, []string{"1", "2", "3", "9"}, receive(t, near, 4))
	require.Equal(t, []string{"9"}, receive(t, far, 1))
}

func TestVolatileSkipsMembersThatLag(t *testing.T) {
	h := newHub(t, nil, nil)
	late, idle := connect(t, h, "x"), connect(t, h, "x")
	publish(t, h.Room("x"), 1, 1)
	require.Equal(t, numbers(1, 1), receive(t, idle, 1))
	require.NoError(t, h.In("x").Volatile().Publish(within(t), []byte("pointer")))
	publish(t, h.Room("x"), 2, 2)
	require.Equal(t, []string{"1", "2"}, receive(t, late, 2))
	require.Equal(t, []string{"pointer", "2"}, receive(t, idle, 2))
}

func TestVolatileIsNotReportedMissing(t *testing.T) {
	h := newHub(t, nil, &fanout.Options{Window: fanout.Window{Messages: 4}})
	m := connect(t, h, "x")
	publish(t, h.Room("x"), 1, 1)
	for range 10 {
		require.NoError(t, h.In("x").Volatile().Publish(within(t), []byte("pointer")))
	}
	publish(t, h.Room("x"), 2, 2)
	require.Equal(t, []string{"gap 1", "2"}, receive(t, m, 2))
}

func TestVolatileMessagesAloneAreNoGap(t *testing.T) {
	for _, overflow := range []fanout.Overflow{fanout.Skip, fanout.Latest, fanout.Disconnect} {
		h := newHub(t, nil, &fanout.Options{Overflow: overflow, Window: fanout.Window{Messages: 16}})
		m := connect(t, h, "x")
		for range 100 {
			require.NoError(t, h.In("x").Volatile().Publish(within(t), []byte("pointer")))
		}
		publish(t, h.Room("x"), 1, 1)
		require.Equal(t, []string{"1"}, receive(t, m, 1))
	}
}

func TestSelectionsAreValues(t *testing.T) {
	h := newHub(t, nil, nil)
	a, b := connect(t, h, "x"), connect(t, h, "x")
	all := h.In("x")
	notA := all.Except(a.ID())
	nobody := notA.Except(b.ID())
	for s, want := range map[*fanout.Selection]string{&all: "1", &notA: "2", &nobody: "3"} {
		require.NoError(t, s.Publish(within(t), []byte(want)))
	}
	require.ElementsMatch(t, []string{"1"}, receive(t, a, 1))
	require.ElementsMatch(t, []string{"1", "2"}, receive(t, b, 2))
	nothing(t, h, a)
	nothing(t, h, b)
}

func TestOneFailingRoomDoesNotKeepTheOthersFromTheirMessage(t *testing.T) {
	bus := memory.NewBus()
	h := newHub(t, bus, nil)
	m := connect(t, h, "good")
	bus.Intercept(func(_ context.Context, f memory.Frame) memory.Fate {
		if strings.Contains(f.Channel, "bad") {
			return memory.Fate{Drop: true, Err: fmt.Errorf("%w: no rights", fanout.ErrRefused)}
		}
		return memory.Fate{}
	})
	err := h.In("bad", "good", "bad too").Publish(within(t), []byte("1"))
	require.ErrorIs(t, err, fanout.ErrRefused)
	require.ErrorContains(t, err, `room "bad"`)
	require.ErrorContains(t, err, `room "bad too"`)
	require.NotContains(t, err.Error(), `"good"`)
	require.Equal(t, []string{"1"}, receive(t, m, 1))
}

func TestBadInputGetsANamedErrorAndHarmsNobody(t *testing.T) {
	h, other := newHub(t, nil, &fanout.Options{MaxMessage: 100}), newHub(t, nil, nil)
	m, stranger := connect(t, h, "x"), connect(t, other)
	gone := connect(t, h)
	gone.Close()
	long := strings.Repeat("x", 256)
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	ctx := within(t)
	room := h.Room("x")
	for _, test := range []struct {
		name string
		err  error
		want error
		says string
	}{
		{"empty room name", h.Room("").Publish(ctx, nil), fanout.ErrInvalidRoom, "empty"},
		{"join an empty room name", h.Room("").Join(ctx, m), fanout.ErrInvalidRoom, "empty"},
		{"leave a long room name", h.Room(long).Leave(ctx, m), fanout.ErrInvalidRoom, "256 bytes"},
		{"room name that is not UTF-8", h.Room("a\xff").Join(ctx, m), fanout.ErrInvalidRoom, "UTF-8"},
		{"bad name in a selection", h.In("x", "").Publish(ctx, nil), fanout.ErrInvalidRoom, "empty"},
		{"bad name in an exception", h.In("x").ExceptRooms(long).Publish(ctx, nil), fanout.ErrInvalidRoom, "256"},
		{"too much data", room.Publish(ctx, make([]byte, 101)), fanout.ErrTooLarge, "101 bytes, at most 100"},
		{"too much data in a selection", h.Everyone().Publish(ctx, make([]byte, 101)), fanout.ErrTooLarge, "100"},
		{"no rooms", h.In().Publish(ctx, nil), fanout.ErrEmptySelection, "no room"},
		{"no members", h.To().Publish(ctx, nil), fanout.ErrEmptySelection, "no member"},
		{"zero selection", fanout.Selection{}.Publish(ctx, nil), fanout.ErrEmptySelection, "Hub.In"},
		{"no member ID", h.To("ann").Publish(ctx, nil), fanout.ErrInvalidMember, `"ann"`},
		{"no member ID in an exception", h.In("x").Except("").Publish(ctx, nil), fanout.ErrInvalidMember, `""`},
		{"nil member", room.Join(ctx, nil), fanout.ErrInvalidMember, "nil"},
		{"nil member leaves", room.Leave(ctx, nil), fanout.ErrInvalidMember, "nil"},
		{"member of another hub", room.Join(ctx, stranger), fanout.ErrInvalidMember, "another hub"},
		{"closed member", room.Join(ctx, gone), fanout.ErrClosed, ""},
		{"cancelled join", h.Room("y").Join(cancelled, m), context.Canceled, ""},
		{"cancelled publish", room.Publish(cancelled, nil), context.Canceled, ""},
		{"cancelled direct message", h.To(m.ID()).Publish(cancelled, nil), context.Canceled, ""},
		{"cancelled local message", h.In("x").Local().Publish(cancelled, nil), context.Canceled, ""},
		{"cancelled publish was not sent", room.Publish(cancelled, nil), fanout.ErrUnsent, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.ErrorIs(t, test.err, test.want)
			require.ErrorContains(t, test.err, test.says)
			require.NotContains(t, test.err.Error(), "\n")
		})
	}
	_, err := m.Receive(cancelled)
	require.ErrorIs(t, err, context.Canceled)
	_, err = m.ReceiveBatch(ctx, nil)
	require.ErrorContains(t, err, "buffer")
	require.Equal(t, []string{"x"}, m.Rooms())
	require.NoError(t, room.Publish(ctx, make([]byte, 100)))
	require.Len(t, receive(t, m, 1)[0], 100)
}

func TestInvalidOptionsAreRefused(t *testing.T) {
	for says, o := range map[string]fanout.Options{
		"Window.Messages is -1":      {Window: fanout.Window{Messages: -1}},
		"Window.Bytes is -1":         {Window: fanout.Window{Bytes: -1}},
		"Overflow is 7":              {Overflow: 7},
		"MaxMessage is -1":           {MaxMessage: -1},
		"MaxMessage is 1073741824":   {MaxMessage: 1 << 30},
		"PublishTimeout is -1ns":     {PublishTimeout: -1},
		`Prefix "a{b": it contains`:  {Prefix: "a{b"},
		"it is 65 bytes long, 1 to ": {Prefix: strings.Repeat("p", 65)},
	} {
		_, err := fanout.New(nil, &o)
		require.ErrorIs(t, err, fanout.ErrInvalidOption)
		require.ErrorContains(t, err, says)
	}
	bus := memory.NewBus()
	a := bus.NewAdapter()
	newHubOn(t, a, nil)
	_, err := fanout.New(a, nil)
	require.ErrorContains(t, err, "attaching the adapter", "one hub an adapter")
	require.False(t, errors.Is(err, fanout.ErrInvalidOption))
}
