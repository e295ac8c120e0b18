package fanout_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/require"
)

func TestExceptions(t *testing.T) {
	// crowd is a hub with 20,000 members in a room, and one that lags in
	// another.
	const crowd, window = 20_000, 1 << 20
	withCrowd := func(t *testing.T) (h *fanout.Hub, late *fanout.Member, ids []string) {
		h = newHub(t, nil, nil)
		for i := range crowd {
			m := connect(t, h, "crowd")
			if i%20 == 0 {
				ids = append(ids, m.ID())
			}
		}
		return h, connect(t, h, "x"), ids
	}
	t.Run("of 20,000 members pin little beside the window, and cost the publisher little", func(t *testing.T) {
		h, late, ids := withCrowd(t)
		before := liveHeap()
		for n := range 256 {
			s := h.In("x").ExceptRooms("crowd")
			if n%2 == 0 {
				s = s.Except(ids...)
			}
			require.NoError(t, s.Publish(t.Context(), []byte("abc")))
		}
		held := liveHeap() - before
		t.Logf("%d bytes", held)
		require.Less(t, held, int64(2*window))
		fastest := func(room string) time.Duration { // the machine may be busy
			least := time.Hour
			for range 100 {
				began := time.Now()
				require.NoError(t, h.In("x").ExceptRooms(room).Publish(t.Context(), []byte("abc")))
				least = min(least, time.Since(began))
			}
			return least
		}
		large, empty := fastest("crowd"), fastest("empty")
		t.Logf("%v, without members %v", large, empty)
		require.Less(t, large, 10*empty+20*time.Microsecond)
		runtime.KeepAlive(late)
	})
	t.Run("count in the window", func(t *testing.T) {
		h := newHub(t, nil, &fanout.Options{Window: fanout.Window{Messages: 1 << 20, Bytes: 256 << 10}})
		m := connect(t, h, "x")
		except := h.In("x").ExceptRooms(roomNames(1000)...)
		before := liveHeap()
		for range 1000 {
			require.NoError(t, except.Publish(t.Context(), []byte("abc")))
		}
		require.Less(t, liveHeap()-before, int64(512<<10))
		endOf(t, h, "x")
		require.Equal(t, "gap ", receive(t, m, 1)[0][:4])
	})
	t.Run("mean the members of a room when the message arrives, by chance", func(t *testing.T) {
		for seed := range uint64(40) {
			exceptByChance(t, rand.New(rand.NewPCG(seed, 1)))
		}
	})
	t.Run("mean members that have left since, in up to 64 rooms", func(t *testing.T) {
		h := newHub(t, nil, nil)
		rooms := roomNames(64)
		m := connect(t, h, append(rooms, "x")...)
		for _, room := range rooms {
			require.NoError(t, h.In("x").ExceptRooms(room).Publish(within(t), []byte(room)))
		}
		for _, room := range rooms {
			require.NoError(t, h.Room(room).Leave(t.Context(), m))
		}
		endOf(t, h, "x")
		require.Empty(t, drain(t, m, 1))
	})
	t.Run("cost a member that comes and goes no memory", func(t *testing.T) {
		h := newHub(t, nil, nil)
		var members []*fanout.Member
		for range 100 {
			members = append(members, connect(t, h, "x"))
		}
		before := liveHeap()
		for n := range 500 {
			room := fmt.Sprint("room ", n%10)
			for _, m := range members {
				require.NoError(t, h.Room(room).Join(t.Context(), m))
			}
			require.NoError(t, h.In("x").ExceptRooms(room).Publish(t.Context(), fmt.Append(nil, n)))
			for _, m := range members {
				require.NoError(t, h.Room(room).Leave(t.Context(), m))
			}
		}
		each := (liveHeap() - before) / int64(len(members))
		t.Logf("%d bytes", each)
		require.Less(t, each, int64(4<<10))
		runtime.KeepAlive(members)
	})
	t.Run("travel between hubs", func(t *testing.T) {
		bus := memory.NewBus()
		a, b := newHub(t, bus, nil), newHub(t, bus, nil)
		in, out := connect(t, b, "x"), connect(t, b, "x", "quiet")
		named := connect(t, b, "x")
		require.NoError(t, a.In("x").ExceptRooms("quiet", "nobody").Except(named.ID(), connect(t, a).ID()).Publish(within(t), []byte("1")))
		endOf(t, a, "x")
		require.Equal(t, []string{"1"}, drain(t, in, 1))
		require.Empty(t, drain(t, out, 1))
		require.Empty(t, drain(t, named, 1))
	})
}

// exceptByChance compares what members get with a model that looks at rooms
// when a message is published: without a backend it arrives then.
func exceptByChance(t *testing.T, random *rand.Rand) {
	h := newHub(t, nil, nil)
	rooms := roomNames(5)
	members := make([]*fanout.Member, 4)
	want := make([][]string, len(members))
	in := make([]map[string]bool, len(members))
	for i := range members {
		members[i] = connect(t, h, "x")
		in[i] = map[string]bool{}
	}
	some := func(from []string) []string {
		from = slices.Clone(from)
		random.Shuffle(len(from), func(a, b int) { from[a], from[b] = from[b], from[a] })
		return from[:random.IntN(len(from))]
	}
	var ids []string
	for _, m := range members {
		ids = append(ids, m.ID())
	}
	for n := range 200 {
		i := random.IntN(len(members))
		room := rooms[random.IntN(len(rooms))]
		switch random.IntN(6) {
		case 0:
			require.NoError(t, h.Room(room).Join(within(t), members[i]))
			in[i][room] = true
		case 1:
			require.NoError(t, h.Room(room).Leave(t.Context(), members[i]))
			delete(in[i], room)
		case 2:
			require.ElementsMatch(t, want[i], receive(t, members[i], len(want[i])))
			want[i] = nil
		default:
			exceptRooms, except := some(rooms), some(ids)
			s := h.In("x")
			switch random.IntN(3) {
			case 0:
				s = h.Everyone()
			case 1:
				s = h.To(ids...)
			}
			text := fmt.Sprint(n)
			require.NoError(t, s.ExceptRooms(exceptRooms...).Except(except...).Publish(within(t), []byte(text)))
			for i, m := range members {
				left := slices.Contains(except, m.ID())
				for _, room := range exceptRooms {
					left = left || in[i][room]
				}
				if !left {
					want[i] = append(want[i], text)
				}
			}
		}
	}
	for i, m := range members {
		require.ElementsMatch(t, want[i], receive(t, m, len(want[i])))
		nothing(t, h, m)
	}
}

func TestSelectionOfTooManyNames(t *testing.T) {
	h := newHub(t, nil, nil)
	m := connect(t, h, "x")
	ids := make([]string, 1025)
	for i := range ids {
		ids[i] = fmt.Sprintf("%s-%d", h.ID(), i+1)
	}
	many := roomNames(1025)
	for says, s := range map[string]fanout.Selection{
		"leaves out rooms: 1025 of them, at most 1024": h.In("x").ExceptRooms(many...),
		"leaves out members: 1025 of them":             h.In("x").Except(ids[:1000]...).Except(ids[1000:]...),
		"names members: 1025 of them":                  h.To(ids...),
		"names rooms: 1025 of them":                    h.In(many...),
	} {
		for _, s := range []fanout.Selection{s, s.Local()} {
			err := s.Publish(within(t), nil)
			require.ErrorIs(t, err, fanout.ErrTooLarge)
			require.ErrorContains(t, err, says)
			require.ErrorIs(t, s.PublishAsync(within(t), nil, nil), fanout.ErrTooLarge)
		}
	}
	same := make([]string, 16_384)
	for i := range same {
		same[i] = "quiet"
	}
	for i, s := range []fanout.Selection{
		h.In("x").ExceptRooms(same...),
		h.In("x").ExceptRooms(many[:1024]...),
		h.In("x").Except(ids[1:]...),
		h.To(append(same[:0:0], ids[:1024]...)...),
	} {
		text := fmt.Sprint(i)
		require.NoError(t, s.Publish(within(t), []byte(text)))
		require.Equal(t, text, receive(t, m, 1)[0])
	}
}
