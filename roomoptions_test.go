package fanout_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// roomOptions returns Options.Room for the rooms given; others get the zero
// RoomOptions.
func roomOptions(rooms map[string]fanout.RoomOptions) func(string) fanout.RoomOptions {
	return func(name string) fanout.RoomOptions { return rooms[name] }
}

func TestRoomOptions(t *testing.T) {
	t.Run("a slow member is ended in one room and skips in another", func(t *testing.T) {
		h := newHub(t, nil, &fanout.Options{Room: roomOptions(map[string]fanout.RoomOptions{
			"game": {Window: fanout.Window{Messages: 8}, Overflow: fanout.Disconnect},
			"chat": {Window: fanout.Window{Messages: 16}},
		})})
		player, talker := connect(t, h, "game"), connect(t, h, "chat")
		publish(t, h.Room("game"), 1, 40)
		publish(t, h.Room("chat"), 1, 40)
		select {
		case <-player.Done():
		case <-within(t).Done():
			t.Fatal("the slow member of the room that disconnects is not ended")
		}
		_, err := player.Receive(within(t))
		require.ErrorIs(t, err, fanout.ErrSlow)
		var gap *fanout.GapError
		_, err = talker.Receive(within(t))
		require.ErrorAs(t, err, &gap)
		require.Equal(t, fanout.GapError{Room: "chat", Missed: 24}, *gap)
		require.Len(t, receive(t, talker, 16), 16)
	})
	t.Run("Latest goes on at the newest message", func(t *testing.T) {
		h := newHub(t, nil, &fanout.Options{Overflow: fanout.Disconnect, Room: roomOptions(map[string]fanout.RoomOptions{
			"latest": {Window: fanout.Window{Messages: 8}, Overflow: fanout.Latest},
		})})
		m := connect(t, h, "latest")
		publish(t, h.Room("latest"), 1, 40)
		_, err := m.Receive(within(t))
		require.EqualError(t, err, `fanout: room "latest": missed 39 messages`)
		require.Equal(t, []string{"40"}, receive(t, m, 1))
	})
	t.Run("one member can be in rooms with different windows", func(t *testing.T) {
		h := newHub(t, nil, &fanout.Options{Window: fanout.Window{Messages: 8}, Room: roomOptions(map[string]fanout.RoomOptions{
			"wide": {Window: fanout.Window{Messages: 1024}},
			"long": {Window: fanout.Window{Messages: 1024, Bytes: 20}},
		})})
		m := connect(t, h, "usual", "wide", "long")
		for _, room := range []string{"usual", "wide", "long"} {
			publish(t, h.Room(room), 101, 140)
		}
		got, missed := receiveAll(t, m, 3*40)
		require.Equal(t, map[string]int{"usual": 8, "wide": 40, "long": 6}, got, "of 3 bytes each")
		require.Equal(t, map[string]int{"usual": 32, "long": 34}, missed)
	})
	t.Run("a zero field is that of Options", func(t *testing.T) {
		h := newHub(t, nil, &fanout.Options{
			Window: fanout.Window{Messages: 8, Bytes: 9}, Overflow: fanout.Latest,
			Room: roomOptions(map[string]fanout.RoomOptions{
				"messages": {Window: fanout.Window{Messages: 1024}, Overflow: fanout.Skip},
				"bytes":    {Window: fanout.Window{Bytes: 1024}, Overflow: fanout.Skip},
			}),
		})
		m := connect(t, h, "messages", "bytes", "neither")
		for _, room := range []string{"messages", "bytes", "neither"} {
			publish(t, h.Room(room), 101, 140)
		}
		got, _ := receiveAll(t, m, 3*40)
		require.Equal(t, map[string]int{"messages": 3, "bytes": 8, "neither": 1}, got)
	})
	t.Run("a window of a room with a history is its own", func(t *testing.T) {
		keep := fanout.Retention{Messages: 500}
		h := newHub(t, memory.NewBus(), &fanout.Options{Window: fanout.Window{Messages: 1}, Room: roomOptions(map[string]fanout.RoomOptions{
			"narrow": {Retain: keep}, "wide": {Retain: keep, Window: fanout.Window{Messages: 500}},
		})})
		for _, room := range []string{"narrow", "wide"} {
			_ = connect(t, h, room)
			publish(t, h.Room(room), 1, 400)
			before := h.Stats().Reads
			late := connect(t, h)
			require.NoError(t, h.Room(room).Resume(within(t), late, fanout.Position{}))
			require.Len(t, receive(t, late, 400), 400)
			require.Equal(t, room == "narrow", h.Stats().Reads > before, "%s: the window serves a Resume if it holds enough", room)
		}
	})
	t.Run("are asked for once while the room is in use", func(t *testing.T) {
		var asked atomic.Int32
		h := newHub(t, nil, &fanout.Options{Room: func(name string) fanout.RoomOptions {
			assert.Equal(t, "lobby", name)
			asked.Add(1)
			return fanout.RoomOptions{}
		}})
		_ = connect(t, h, "lobby")
		publish(t, h.Room("lobby"), 1, 3)
		require.NoError(t, h.Everyone().Publish(within(t), nil), "which is no room")
		require.EqualValues(t, 1, asked.Load())
	})
}

func TestRoomOptionsBadInput(t *testing.T) {
	for says, o := range map[string]fanout.RoomOptions{
		"Retain.Messages is -1, it must be 1 to 1000000":        {Retain: fanout.Retention{Messages: -1}},
		"Retain.Messages is 1000001, it must be 1 to 1000000":   {Retain: fanout.Retention{Messages: 1_000_001}},
		"Retain.Messages is 0, it must be 1 to 1000000":         {Retain: fanout.Retention{Age: time.Hour}},
		"Retain.Age is 1ms, it must be 1s to 8784h0m0s":         {Retain: fanout.Retention{Messages: 1, Age: time.Millisecond}},
		"Retain.Age is 8808h0m0s, it must be 1s to 8784h0m0s":   {Retain: fanout.Retention{Messages: 1, Age: 367 * 24 * time.Hour}},
		"Window.Messages is -1, it must be at least 1":          {Window: fanout.Window{Messages: -1}},
		"Window.Bytes is -1, it must be at least 1":             {Window: fanout.Window{Bytes: -1}},
		"Overflow is 4, it must be Skip, Latest or Disconnect":  {Overflow: 4},
		"Overflow is -1, it must be Skip, Latest or Disconnect": {Overflow: -1},
	} {
		t.Run(says, func(t *testing.T) {
			h := newHub(t, nil, &fanout.Options{Room: roomOptions(map[string]fanout.RoomOptions{"x": o})})
			m := connect(t, h)
			for _, err := range []error{
				h.Room("x").Join(within(t), m),
				h.Room("x").Resume(within(t), m, fanout.Position{}),
				h.Room("x").Publish(within(t), []byte("lost")),
				h.In("x").Publish(within(t), []byte("lost")),
			} {
				require.ErrorIs(t, err, fanout.ErrInvalidOption)
				require.ErrorContains(t, err, `Room("x"): `+says)
			}
			require.NoError(t, h.Room("y").Join(within(t), m), "nothing is wrong with other rooms")
			require.NoError(t, h.Everyone().Publish(within(t), []byte("nobody else notices")))
		})
	}
	t.Run("a history that the adapter cannot keep", func(t *testing.T) {
		h := newHubOn(t, struct{ fanout.Adapter }{memory.NewBus().NewAdapter()}, keeping(1))
		m := connect(t, h)
		err := h.Room("x").Join(within(t), m)
		require.ErrorIs(t, err, fanout.ErrInvalidOption)
		require.ErrorContains(t, err, `Room("x"): Retain is set, but the adapter (struct`)
		require.ErrorContains(t, err, "keeps no history")
		require.NoError(t, h.Room("plain").Join(within(t), m))
	})
}

// receiveAll receives until n messages have been received or reported missing,
// and returns how many of each room were.
func receiveAll(t *testing.T, m *fanout.Member, n int) (got, missed map[string]int) {
	t.Helper()
	got, missed = make(map[string]int), make(map[string]int)
	for n > 0 {
		msg, err := m.Receive(within(t))
		var gap *fanout.GapError
		if err != nil {
			require.ErrorAs(t, err, &gap)
			require.False(t, gap.Unknown)
			missed[gap.Room] += gap.Missed
			n -= gap.Missed
			continue
		}
		require.True(t, strings.TrimSpace(string(msg.Data)) != "")
		got[msg.Room]++
		n--
	}
	return got, missed
}
