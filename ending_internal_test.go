package fanout

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMemberFinish(t *testing.T) {
	// begin returns a member of room x with messages 1 and 2, and the place
	// after message 1.
	begin := func(t *testing.T) (h *Hub, m *Member, place roomPlace) {
		h, err := New(nil, nil)
		require.NoError(t, err)
		m, err = h.Connect(nil)
		require.NoError(t, err)
		lobby := h.Room("x")
		require.NoError(t, lobby.Join(t.Context(), m))
		require.NoError(t, lobby.Publish(t.Context(), []byte("1")))
		r := h.lookup(lobby.channel)
		place = roomPlace{r, r.log.Mark()}
		require.NoError(t, lobby.Publish(t.Context(), []byte("2")))
		return h, m, place
	}
	t.Run("ends at a place", func(t *testing.T) {
		h, m, place := begin(t)
		defer h.Close(t.Context())
		m.finish(&ClosedError{Reason: "kicked"}, time.Now().Add(closeGrace), place)
		buf := make([]Message, 3)
		n, err := m.ReceiveBatch(t.Context(), buf)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.Equal(t, "1", string(buf[0].Data))
		require.NoError(t, m.Err())
		_, err = m.ReceiveBatch(t.Context(), buf)
		require.Equal(t, &ClosedError{Reason: "kicked"}, m.Err())
		require.ErrorIs(t, err, ErrClosed)
		require.Empty(t, h.leaving)
	})
	t.Run("ends a member that does not read after a while", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h, m, _ := begin(t)
			defer h.Close(t.Context())
			start := time.Now()
			m.finish(&ClosedError{Reason: "kicked"}, start.Add(closeGrace), roomPlace{})
			<-m.Done()
			require.Equal(t, closeGrace, time.Since(start))
			require.Equal(t, &ClosedError{Reason: "kicked"}, m.Err())
		})
	})
	t.Run("leaves the room", func(t *testing.T) {
		h, m, place := begin(t)
		defer h.Close(t.Context())
		m.finish(&ClosedError{Reason: "kicked"}, time.Now().Add(closeGrace), roomPlace{})
		r := place.room
		require.Zero(t, r.life.Members())
		require.Positive(t, r.life.Uses(), "its history may have to be read")
		require.NoError(t, h.Room("x").Leave(t.Context(), m))
		require.Zero(t, r.life.Uses())
		_, err := m.Receive(t.Context())
		require.ErrorIs(t, err, ErrClosed)
		require.Equal(t, &ClosedError{Reason: "kicked"}, m.Err())
	})
	t.Run("has no effect on one that has ended", func(t *testing.T) {
		h, m, _ := begin(t)
		defer h.Close(t.Context())
		m.Close()
		m.finish(&ClosedError{Reason: "kicked"}, time.Now().Add(closeGrace), roomPlace{})
		require.Equal(t, ErrClosed, m.Err())
		require.Empty(t, h.leaving)
	})
}
