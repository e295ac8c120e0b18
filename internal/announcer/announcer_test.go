package announcer

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/notices"
	"github.com/fanoutgo/fanout/internal/presence"
	"github.com/fanoutgo/fanout/internal/questions"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

// A hub has one room, and reaches the others at once.
type hub struct {
	Announcer
	room Room
	net  *net

	mu        locks.Mutex[locks.Room]
	gone      map[uint64]bool
	since     time.Time // when all other hubs began
	entries   []item.Entry
	questions int  // how often it asked
	mute      bool // no other hub answers it
}

// A net is some hubs, numbered from 1. The hub of number i is hubs[i-1].
type net struct{ hubs []*hub }

// in runs a test with n hubs whose rooms are subscribed.
func in(t *testing.T, n int, test func(t *testing.T, hubs []*hub)) {
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(context.Background())
		all := new(net)
		for i := range n {
			h := &hub{net: all, gone: make(map[uint64]bool)}
			h.Init(&Env{
				Notices: &notices.Sender{
					Hub: uint64(i + 1), Context: ctx, Go: wg.Go,
					Inbox: func(to uint64) notices.Channel { return h },
				},
				Go: wg.Go, Ask: h.ask,
				Lane:      func(string) questions.Lane { return questions.Lane{Out: h} },
				NewLife:   func() uint64 { return uint64(time.Now().UnixNano()) },
				IsGone:    func(other uint64) bool { return h.gone[other] },
				Since:     func(uint64) time.Time { return h.since },
				IsNew:     func() bool { return false },
				Uncounted: func() bool { return true },
				Malformed: func(channel string, err error) { t.Errorf("%s: %v", channel, err) },
			})
			h.room.Init(&h.Announcer, h)
			all.hubs = append(all.hubs, h)
		}
		for _, h := range all.hubs {
			wg.Go(h.Run)
			h.mu.Lock()
			h.room.Follow()
			h.mu.Unlock()
		}
		synctest.Wait()
		test(t, all.hubs)
		cancel()
		wg.Wait()
	})
}

func (h *hub) number() uint64 { return h.env.Notices.Hub }

// ask is Env.Ask: all hubs that are not gone answer.
func (h *hub) ask(_ context.Context, q *control.Question, take questions.Take, lanes questions.Lanes) error {
	h.mu.Lock()
	h.questions++
	mute := h.mute
	h.mu.Unlock()
	to := lanes(q)[0].Hub
	for _, other := range h.net.hubs {
		if (to == 0 || to == other.number()) && (!mute || other == h) {
			a := other.room.Snapshot(q)
			take(other.number(), a)
		}
	}
	return nil
}

// What a hub is as a Host.
func (h *hub) Mutex() *locks.Mutex[locks.Room] { return &h.mu }
func (h *hub) Name() string                    { return "lobby" }
func (h *hub) Channel() string                 { return "r:lobby" }
func (h *hub) Outgoing() notices.Channel       { return h }
func (h *hub) Use()                            {}

func (h *hub) Append(e item.Entry) (wake func()) {
	h.entries = append(h.entries, e)
	return func() {}
}

// What a hub is as the channel of its room. Release ends a Hold or a Use.
func (h *hub) Hold()    {}
func (h *hub) Release() {}

func (h *hub) Notify(_ context.Context, notice []byte) (receivers int, err error) {
	from, payload, err := wire.DecodeControl(notice)
	for _, other := range h.net.hubs {
		other.room.Receive(from, payload)
	}
	return len(h.net.hubs), err
}

type member uint64

func (m member) Number() uint64 { return uint64(m) }
func (m member) Entry() control.Entry {
	return control.Entry{Number: uint64(m), Name: []byte("someone")}
}

// join brings a member into the room of a hub, and waits until that is
// announced.
func (h *hub) join(m member) {
	h.mu.Lock()
	h.room.Came(m)
	h.mu.Unlock()
	time.Sleep(time.Second)
}

// set changes the hub, and returns how often it has asked.
func (h *hub) set(change func()) (asked int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
	return h.questions
}

// count returns the number of those that are here.
func (h *hub) count(t *testing.T) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	list, _ := h.room.List()
	c, err := presence.Decode(list)
	require.NoError(t, err)
	return len(c.Joined)
}

func TestRoom(t *testing.T) {
	t.Run("announces members, and knows those of others", func(t *testing.T) {
		in(t, 2, func(t *testing.T, hubs []*hub) {
			require.Zero(t, hubs[0].count(t))
			hubs[1].join(7)
			require.Equal(t, 1, hubs[0].count(t))
			require.Equal(t, 1, hubs[1].count(t))
			hubs[1].mu.Lock()
			hubs[1].room.Went(member(7))
			hubs[1].mu.Unlock()
			time.Sleep(time.Second)
			require.Zero(t, hubs[0].count(t))
		})
	})
	t.Run("removes members of a dead hub, unless it is back", func(t *testing.T) {
		in(t, 2, func(t *testing.T, hubs []*hub) {
			hubs[1].join(7)
			hubs[0].HubGone(2, false)
			require.Equal(t, 1, hubs[0].count(t), "it was found alive before the room was told")
			hubs[0].gone[2] = true
			hubs[0].HubGone(2, false)
			require.Zero(t, hubs[0].count(t))
		})
	})
	t.Run("asks a hub that is back for the announcements of the time when it was gone", func(t *testing.T) {
		in(t, 2, func(t *testing.T, hubs []*hub) {
			hubs[0].gone[2] = true
			hubs[1].join(7)
			require.Zero(t, hubs[0].count(t))
			hubs[0].gone[2] = false
			asked := hubs[0].questions
			hubs[0].HubCame(2, false)
			time.Sleep(time.Second)
			require.Equal(t, 1, hubs[0].count(t))
			require.Greater(t, hubs[0].questions, asked)
		})
	})
	t.Run("asks a hub that it meets late, unless it began late, or is only back", func(t *testing.T) {
		in(t, 2, func(t *testing.T, hubs []*hub) {
			came := func(began time.Duration, met bool) int {
				before := hubs[0].set(func() { hubs[0].since = time.Now().Add(began) })
				hubs[0].HubCame(2, met)
				time.Sleep(time.Second)
				return hubs[0].set(func() {}) - before
			}
			time.Sleep(time.Minute)
			require.Zero(t, came(0, true))
			require.Zero(t, came(-time.Hour, false))
			require.Equal(t, 1, came(-time.Hour, true))
		})
	})
	t.Run("asks a hub that was taken for gone before it answered", func(t *testing.T) {
		in(t, 2, func(t *testing.T, hubs []*hub) {
			hubs[1].join(7)
			var wake func()
			hubs[0].set(func() { hubs[0].mute, wake = true, hubs[0].room.Restored() })
			wake()
			time.Sleep(time.Minute)
			hubs[0].set(func() { hubs[0].gone[2] = true })
			hubs[0].HubGone(2, false)
			require.Zero(t, hubs[0].count(t))
			hubs[0].set(func() { hubs[0].mute, hubs[0].gone[2] = false, false })
			time.Sleep(time.Minute)
			hubs[0].HubCame(2, false)
			time.Sleep(time.Second)
			require.Equal(t, 1, hubs[0].count(t))
		})
	})
	t.Run("announces again after an interruption", func(t *testing.T) {
		in(t, 2, func(t *testing.T, hubs []*hub) {
			hubs[1].join(7)
			hubs[0].mu.Lock()
			hubs[0].room.Unfollow()
			hubs[0].room.Follow()
			wake := hubs[0].room.Restored()
			hubs[0].mu.Unlock()
			wake()
			time.Sleep(time.Second)
			require.Equal(t, 1, hubs[0].count(t))
		})
	})
}
