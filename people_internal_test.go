package fanout

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/require"
)

// However a question ends, nothing of it is left except the note that it has
// run, which is forgotten later.
func TestQuestionsLeaveNoPendingState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		var hubs []*Hub
		for range 3 {
			h, err := New(bus.NewAdapter(), nil)
			require.NoError(t, err)
			defer h.Close(context.Background())
			hubs = append(hubs, h)
			for range 2000 {
				m, err := h.Connect(&MemberOptions{Info: make([]byte, 100)})
				require.NoError(t, err)
				require.NoError(t, h.Room("x").Join(t.Context(), m))
			}
		}
		s := hubs[0].In("x")
		_, err := s.Count(t.Context())
		require.NoError(t, err)
		n := 0
		for _, err := range s.Members(t.Context()) {
			require.NoError(t, err)
			n++
		}
		require.Equal(t, 6000, n)
		for _, err := range s.Members(t.Context()) { // left early
			require.NoError(t, err)
			break
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for _, err := range s.Ask(ctx, nil) { // nobody answers
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
		time.Sleep(time.Second) // credits and cancels arrive
		synctest.Wait()         // answers to probes are sent at this moment
		for _, h := range hubs {
			require.Zero(t, h.switchboard.Pending())
		}
	})
}
