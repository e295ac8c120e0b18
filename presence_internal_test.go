package fanout

import (
	"context"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/internal/control"
	"github.com/stretchr/testify/require"
)

// The answer that nobody is in a room has a life smaller than that of members
// that join after the hub has looked: others ignore announcements of a smaller
// life than the one they know.
func TestEmptyPresenceAnswers(t *testing.T) {
	h, err := New(memory.NewBus().NewAdapter(), &Options{Room: func(string) RoomOptions { return RoomOptions{Presence: true} }})
	require.NoError(t, err)
	defer h.Close(context.Background())
	r := h.acquire("room", h.names.Room("room"))
	defer h.release(r)
	for name, lock := range map[string]interface {
		Lock()
		Unlock()
	}{"room": &r.mu, "no room": &h.mu} {
		t.Run(name, func(t *testing.T) {
			q := &control.Question{Op: control.OpPresence, Names: []string{name}}
			lock.Lock() // the hub cannot look yet
			before := h.lastStream.Load()
			done := make(chan *control.Answer)
			go func() { done <- h.announced(q) }()
			for end := time.Now().Add(5 * time.Second); h.lastStream.Load() == before && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			joined := h.newStream()
			lock.Unlock()
			require.Less(t, (<-done).Life, joined)
		})
	}
}
