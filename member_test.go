package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/require"
)

func TestRoomsTakeTurns(t *testing.T) {
	h := newHub(t, nil, nil)
	m := connect(t, h, "busy", "calm")
	publish(t, h.Room("busy"), 1, 200)
	require.NoError(t, h.Room("calm").Publish(within(t), []byte("calm")))
	require.Contains(t, receive(t, m, 5), "calm", "the busy room does not keep the other waiting")
}

func TestReceiveBatchTakesWhatIsThere(t *testing.T) {
	h := newHub(t, nil, nil)
	m := connect(t, h, "x", "y")
	publish(t, h.Room("x"), 1, 5)
	publish(t, h.Room("y"), 6, 7)
	buf := make([]fanout.Message, 4)
	n, err := m.ReceiveBatch(within(t), buf)
	require.NoError(t, err)
	require.Equal(t, 4, n)
	n, err = m.ReceiveBatch(within(t), buf)
	require.NoError(t, err)
	require.Equal(t, 3, n)
}

func TestMessagesYieldsGapsAndEndsWithTheMember(t *testing.T) {
	h := newHub(t, nil, &fanout.Options{Window: fanout.Window{Messages: 1}})
	m := connect(t, h, "x")
	publish(t, h.Room("x"), 1, 3)
	var got []string
	for msg, err := range m.Messages(within(t)) {
		if errors.Is(err, fanout.ErrClosed) {
			got = append(got, "closed")
			continue
		}
		got = append(got, show(t, msg, err))
		if len(got) == 2 {
			m.Close()
		}
	}
	require.Equal(t, []string{"gap 2", "3", "closed"}, got)
}

func TestASecondReceiveIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, nil, nil)
		m := connect(t, h, "x")
		got := make(chan string, 1)
		go func() {
			msg, _ := m.Receive(context.Background())
			got <- string(msg.Data)
		}()
		synctest.Wait()
		_, err := m.Receive(t.Context())
		require.ErrorIs(t, err, fanout.ErrConcurrentReceive)
		publish(t, h.Room("x"), 1, 1)
		require.Equal(t, "1", <-got)
	})
}

func TestReceiveAfterItsContextEndedLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, nil, nil)
		m := connect(t, h, "x")
		for n := range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := m.Receive(ctx)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			cancel()
			_, err = m.Receive(ctx)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			publish(t, h.Room("x"), n, n)
			_, err = m.Receive(ctx)
			require.ErrorIs(t, err, context.DeadlineExceeded, "though there is a message")
			require.Equal(t, numbers(n, n), receive(t, m, 1))
		}
	})
}

func TestOverflowLatestGoesOnAtTheNewest(t *testing.T) {
	h := newHub(t, nil, &fanout.Options{Window: fanout.Window{Messages: 4}, Overflow: fanout.Latest})
	m := connect(t, h, "x")
	publish(t, h.Room("x"), 1, 10)
	require.Equal(t, []string{"gap 9", "10"}, receive(t, m, 2))
}

func TestOverflowDisconnectEndsTheMemberByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, nil, &fanout.Options{Window: fanout.Window{Messages: 8}, Overflow: fanout.Disconnect})
		stuck, reader := connect(t, h, "x", "y"), connect(t, h, "x")
		for n := 1; n <= 12; n++ { // one and a half windows
			publish(t, h.Room("x"), n, n)
			require.Equal(t, numbers(n, n), receive(t, reader, 1))
		}
		synctest.Wait()
		select {
		case <-stuck.Done():
		default:
			t.Fatal("a member that does not read is not ended")
		}
		_, err := stuck.Receive(t.Context())
		require.ErrorIs(t, err, fanout.ErrSlow)
		require.Empty(t, stuck.Rooms())
		require.Equal(t, 1, h.Stats().Members)
		require.EqualValues(t, 1, h.Stats().Slow)
		require.NoError(t, stuck.Close())
		_, err = stuck.Receive(t.Context())
		require.ErrorIs(t, err, fanout.ErrSlow, "the first reason stays")
	})
}

func TestOverflowDisconnectEndsMembersThatReadTooLate(t *testing.T) {
	h := newHub(t, nil, &fanout.Options{Window: fanout.Window{Messages: 8}, Overflow: fanout.Disconnect})
	m := connect(t, h, "x")
	publish(t, h.Room("x"), 1, 9)
	_, err := m.Receive(within(t))
	require.ErrorIs(t, err, fanout.ErrSlow)
	require.Zero(t, h.Stats().Members)
}

func TestOverflowDisconnectCountsBytes(t *testing.T) {
	h := newHub(t, nil, &fanout.Options{Overflow: fanout.Disconnect, Window: fanout.Window{Bytes: 1000}})
	m := connect(t, h, "x")
	for range 3 {
		require.NoError(t, h.Room("x").Publish(within(t), make([]byte, 1000)))
	}
	<-m.Done()
}

func TestWindowIsBoundedInBytes(t *testing.T) {
	h := newHub(t, nil, &fanout.Options{Window: fanout.Window{Bytes: 1000}})
	m := connect(t, h, "x")
	for range 10 {
		require.NoError(t, h.Room("x").Publish(within(t), make([]byte, 300)))
	}
	require.Equal(t, "gap 7", receive(t, m, 1)[0])
}

func TestMemberKnowsItsRoomsAndInfo(t *testing.T) {
	h := newHub(t, nil, nil)
	info := []byte("ann")
	m, err := h.Connect(&fanout.MemberOptions{Info: info})
	require.NoError(t, err)
	info[0] = 'x'
	require.Equal(t, "ann", string(m.Info()))
	var want []string
	for n := range 40 { // more than a few
		room := fmt.Sprint("room", n)
		require.NoError(t, h.Room(room).Join(within(t), m))
		require.NoError(t, h.Room(room).Join(within(t), m), "twice is once")
		want = append(want, room)
	}
	require.ElementsMatch(t, want, m.Rooms())
	for _, room := range want[1:] {
		require.NoError(t, h.Room(room).Leave(t.Context(), m))
		require.NoError(t, h.Room(room).Leave(t.Context(), m), "twice is once")
	}
	require.Equal(t, []string{"room0"}, m.Rooms())
}

func TestCloseEndsAWaitingReceiveAndJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		h := newHub(t, bus, nil)
		m := connect(t, h, "x")
		bus.Cut()
		results := make(chan error, 3)
		go func() { _, err := m.Receive(context.Background()); results <- err }()
		go func() { results <- h.Room("y").Join(context.Background(), m) }()
		go func() { results <- h.Room("y").Join(context.Background(), m) }()
		synctest.Wait()
		require.Empty(t, results)
		m.Close()
		synctest.Wait()
		bus.Heal()
		for range 3 {
			require.ErrorIs(t, <-results, fanout.ErrClosed)
		}
	})
}

func TestMemberThatHasEnded(t *testing.T) {
	h := newHub(t, nil, nil)
	m, err := h.Connect(&fanout.MemberOptions{Info: []byte("old")})
	require.NoError(t, err)
	require.NoError(t, h.Room("x").Join(within(t), m))
	require.NoError(t, m.Close())
	t.Run("keeps its info", func(t *testing.T) {
		require.ErrorIs(t, m.SetInfo([]byte("new")), fanout.ErrClosed)
		require.Equal(t, "old", string(m.Info()))
	})
	t.Run("may leave and close again", func(t *testing.T) {
		require.NoError(t, h.Room("x").Leave(t.Context(), m))
		require.NoError(t, m.Close())
	})
	t.Run("does not answer", func(t *testing.T) {
		require.ErrorIs(t, m.Reply(t.Context(), fanout.Message{}, nil), fanout.ErrNoQuestion)
	})
}
