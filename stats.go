package fanout

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/batch"
)

// Stats are figures of a Hub. Hubs, Members and Rooms are what there is now;
// the others count from the start of the hub, and never fall.
type Stats struct {
	Hubs    int // hubs that this one knows to be there, and itself
	Members int // members that are connected
	Users   int // users that these members belong to
	Rooms   int // rooms with members, lingering rooms, and rooms published to lately; users' channels count, too

	Published uint64 // messages that the backend took
	Frames    uint64 // frames that carried them: fewer, because of batching
	Received  uint64 // messages from the backend, including the hub's own
	Foreign   uint64 // of those, payloads that were not frames of a hub
	Repeated  uint64 // messages dropped because they had come before
	Missed    uint64 // messages known to be missing, once for each room

	Recovered uint64 // messages read from a history because they had not been received
	Reads     uint64 // readings of histories in the backend

	Interruptions uint64 // times that a room's subscription broke
	Malformed     uint64 // frames that could not be read
	// NotUnderstood counts messages of a newer release that this one cannot
	// deliver, because they have a field that has to be understood and that it
	// does not know. Each is reported to the members as missed, and is not
	// counted in Missed. It is counted when it is received, and again when it
	// is read from a history.
	NotUnderstood uint64
	Slow          uint64 // members closed with ErrSlow
}

type counters struct {
	published, frames, received, foreign, repeated, missed atomic.Uint64
	recovered, reads                                       atomic.Uint64
	interruptions, malformed, notUnderstood, slow          atomic.Uint64
}

// Stats returns the hub's figures.
func (h *Hub) Stats() Stats {
	h.mu.RLock()
	members, users, rooms := len(h.members), len(h.users), len(h.rooms)-1 // everyone's is no room
	h.mu.RUnlock()
	c := &h.stats
	return Stats{
		Hubs: len(h.known()), Members: members, Users: users, Rooms: rooms,
		Published: c.published.Load(), Frames: c.frames.Load(),
		Received: c.received.Load(), Foreign: c.foreign.Load(),
		Repeated: c.repeated.Load(), Missed: c.missed.Load(),
		Recovered: c.recovered.Load(), Reads: c.reads.Load(),
		Interruptions: c.interruptions.Load(), Malformed: c.malformed.Load(),
		NotUnderstood: c.notUnderstood.Load(),
		Slow:          c.slow.Load(),
	}
}

// notUnderstood counts messages that a newer release has sent, and that cannot
// be delivered. It may be called with locks held.
func (h *Hub) notUnderstood(channel string, n batch.NotUnderstood) {
	if n.Count == 0 {
		return
	}
	h.stats.notUnderstood.Add(uint64(n.Count))
	if h.unknownField.Due() {
		h.log.Warn("fanout: message not delivered, it has a field that this release does not know (said once a minute; see Stats.NotUnderstood)",
			"channel", channel, "field", n.Field)
	}
}

func (h *Hub) malformed(channel string, err error) {
	if h.stats.malformed.Add(1) == 1 {
		h.log.Error("fanout: frame dropped, is another program or version publishing here? (said once; see Stats.Malformed)",
			"channel", channel, "error", err)
	}
}

// historyUnreadable complains of a history that cannot be read.
func (h *Hub) historyUnreadable(room string, err error) {
	if h.refused.Due() {
		h.log.Error("fanout: history cannot be read, what was missed is reported as a gap (said once a minute, for all rooms)",
			"room", room, "error", err)
	}
}

// Health returns nil if the hub can reach the backend: a message of its own has
// gone through the backend and come back, and the adapter reports that all its
// links are up. Otherwise the error says what does not work. Health waits until
// ctx ends, or until [Options.PublishTimeout] has passed if ctx has no
// deadline; a deadline of a second or two is usual.
func (h *Hub) Health(ctx context.Context) error {
	if h.isClosing() {
		return failed("health", ErrClosed)
	}
	if hc, ok := h.adapter.(adapter.HealthChecker); ok {
		if err := hc.Health(); err != nil {
			return fmt.Errorf("fanout: health: %w", err)
		}
	}
	ctx, release := h.bound(ctx)
	defer release()
	if err := h.awaitOwn(ctx, nil); err != nil {
		return fmt.Errorf("fanout: health: the hub's own channels are not subscribed: %w", err)
	}
	if err := h.echo(ctx); err != nil {
		return fmt.Errorf("fanout: health: message through the backend to the hub itself: %w", err)
	}
	return nil
}
