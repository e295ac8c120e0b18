package item

import (
	"fmt"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/internal/once"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

const hub = "0123456789abcdef"

func home() *Home {
	arrivals := uint64(0)
	return &Home{ID: hub, Arrival: func() uint64 { arrivals++; return arrivals }}
}

func makeFilter(m *Maker, msg wire.Message) *Filter {
	v := msg.View()
	return m.Make(7, &v)
}

func TestFilter(t *testing.T) {
	t.Run("is none for a message that is for everyone", func(t *testing.T) {
		m := Maker{Home: home()}
		require.Nil(t, makeFilter(&m, wire.Message{Data: []byte("x")}))
		require.Nil(t, makeFilter(&m, wire.Message{Except: []string{"fedcba9876543210-1", "no ID"}}), "of other hubs")
	})
	t.Run("excludes members by their numbers", func(t *testing.T) {
		m := Maker{Home: home()}
		f := makeFilter(&m, wire.Message{Except: []string{MemberID(hub, 40), MemberID(hub, 3), MemberID(hub, 40), "fedcba9876543210-9"}})
		for number := range uint64(50) {
			require.Equal(t, number == 3 || number == 40, f.Excludes(number), number)
		}
		_, some := f.ExcludesRooms()
		require.False(t, some)
		require.False(t, f.ExcludesRoom(RoomHash("a")))
		_, several := f.Copy()
		require.False(t, several)
	})
	t.Run("excludes rooms, at the arrival of the message", func(t *testing.T) {
		at := home()
		m := Maker{Home: at}
		first := makeFilter(&m, wire.Message{ExceptRooms: []string{"a"}})
		second := makeFilter(&m, wire.Message{ExceptRooms: []string{"b", "c"}})
		m = Maker{Home: at}
		later := makeFilter(&m, wire.Message{ExceptRooms: []string{"c"}})
		for i, test := range []struct {
			filter  *Filter
			arrival uint64
			rooms   map[string]bool
		}{{first, 1, map[string]bool{"a": true}}, {second, 1, map[string]bool{"b": true, "c": true}}, {later, 2, map[string]bool{"c": true}}} {
			arrival, some := test.filter.ExcludesRooms()
			require.True(t, some)
			require.Equal(t, test.arrival, arrival, i)
			for _, room := range []string{"a", "b", "c", "d"} {
				require.Equal(t, test.rooms[room], test.filter.ExcludesRoom(RoomHash(room)), room)
			}
			require.False(t, test.filter.Excludes(1))
		}
	})
	t.Run("knows the copies of a message to several rooms", func(t *testing.T) {
		m := Maker{Home: home()}
		f := makeFilter(&m, wire.Message{ID: 12})
		key, several := f.Copy()
		require.True(t, several)
		require.Equal(t, CopyKey{7, 12}, key)
		require.False(t, f.Excludes(1))
		_, some := f.ExcludesRooms()
		require.False(t, some)
		require.False(t, f.ExcludesRoom(RoomHash("a")))
	})
	t.Run("shares lists with the message before it", func(t *testing.T) {
		m := Maker{Home: home()}
		list := wire.Message{Except: []string{MemberID(hub, 1)}}
		v := list.View()
		require.Same(t, m.Make(7, &v).except, m.Make(7, &v).except)
		nobody := wire.Message{Except: []string{"fedcba9876543210-1"}}
		v = nobody.View()
		require.Nil(t, m.Make(7, &v))
		require.Nil(t, m.Make(7, &v))
	})
}

func TestEntry(t *testing.T) {
	m := Maker{Home: home()}
	names := make([]string, 100)
	for i := range names {
		names[i] = MemberID(hub, uint64(i+1))
	}
	plain, filtered := Entry{Data: make([]byte, 10)}, Entry{Filter: makeFilter(&m, wire.Message{Except: names}), Volatile: true}
	require.Equal(t, 10, plain.Size())
	require.GreaterOrEqual(t, filtered.Size(), 800)
	require.LessOrEqual(t, filtered.Size(), 1000)
	require.True(t, plain.Counts())
	require.False(t, filtered.Counts())
	require.Equal(t, 0, Entry{Filter: makeFilter(&m, wire.Message{ID: 1})}.Size())
}

func TestMemberID(t *testing.T) {
	t.Run("is read as it is written", func(t *testing.T) {
		for _, n := range []uint64{1, 35, 36, 1 << 40, 1<<64 - 1} {
			id := MemberID(hub, n)
			of, ok := HubOf(id)
			require.True(t, ok)
			require.Equal(t, hub, of)
			got, ok := memberNumber(hub, []byte(id))
			require.True(t, ok)
			require.Equal(t, n, got)
		}
	})
	t.Run("is refused if no hub can have given it", func(t *testing.T) {
		for _, id := range []string{"", "-", hub, hub + "-", "0123-1", "0123456789abcdeg-1", "0123456789ABCDEF-1"} {
			_, ok := HubOf(id)
			require.False(t, ok, id)
		}
		for _, id := range []string{"", hub + "-", hub + "-0", hub + "-01", hub + "-A", hub + "-3w5e11264sgsg", hub + "-zzzzzzzzzzzzz", hub + "-11111111111111", "fedcba9876543210-1", hub + "_1"} {
			_, ok := memberNumber(hub, []byte(id))
			require.False(t, ok, id)
		}
	})
}

func TestStays(t *testing.T) {
	at := home()
	filter := func(rooms ...string) *Filter { // each is an arrival
		m := Maker{Home: at}
		return makeFilter(&m, wire.Message{ExceptRooms: rooms})
	}
	one, two, three := filter("a"), filter("a", "b"), filter("a")
	var s Stays
	require.True(t, s.None())
	require.False(t, s.Exclude(one))
	s.Add(RoomHash("a"), 1, 2) // the member was there when the second arrived
	require.False(t, s.None())
	require.False(t, s.Exclude(one))
	require.True(t, s.Exclude(two))
	require.False(t, s.Exclude(three))
	m := Maker{Home: at}
	require.False(t, s.Exclude(makeFilter(&m, wire.Message{ID: 1})))
	for n := range maxStays {
		s.Add(RoomHash(fmt.Sprint(n)), 0, 9)
	}
	require.Len(t, s.list, maxStays)
	require.False(t, s.Exclude(two), "the oldest is forgotten")
	s.Clear()
	require.True(t, s.None())
}

func TestCopies(t *testing.T) {
	const age = time.Minute
	none := func([]int) bool { return false }
	all := func([]int) bool { return true }
	t.Run("reports the first copy", func(t *testing.T) {
		c := NewCopies[int](false)
		for _, key := range []CopyKey{{1, 1}, {1, 2}, {2, 1}} {
			first, _ := c.Add(key, 0)
			require.True(t, first)
			first, _ = c.Add(key, 0)
			require.False(t, first)
		}
	})
	// fill adds copies that each take a block, until Forget is due.
	next := uint64(0)
	fill := func(c *Copies[int], now time.Duration) (added []CopyKey) {
		for {
			next += 1000
			key := CopyKey{1, next}
			added = append(added, key)
			if _, due := c.Add(key, now); due {
				return added
			}
		}
	}
	knows := func(c *Copies[int], key CopyKey, now time.Duration) bool {
		first, _ := c.Add(key, now)
		return !first
	}
	t.Run("forgets nothing within the budget", func(t *testing.T) {
		require.Greater(t, len(fill(NewCopies[int](false), 0)), copiesBudget)
		require.Greater(t, len(fill(NewCopies[int](true), 0)), copiesBudgetKept)
	})
	t.Run("forgets what is old, once the member has passed where its rooms ended", func(t *testing.T) {
		c := NewCopies[int](false)
		ends := func() []int { return []int{1} }
		old := fill(c, 0)
		c.Forget(2*time.Minute, age, all, ends) // notes where rooms end
		fill(c, 4*time.Minute)
		c.Forget(4*time.Minute, age, none, ends)
		require.True(t, knows(c, old[0], 4*time.Minute))
		fill(c, 4*time.Minute)
		c.Forget(4*time.Minute, age, func(marks []int) bool { require.Equal(t, []int{1}, marks); return true }, ends)
		require.False(t, knows(c, old[0], 4*time.Minute))
	})
	t.Run("keeps what came within the age", func(t *testing.T) {
		c := NewCopies[int](false)
		ends := func() []int { return []int{} }
		young := fill(c, 2*time.Minute)
		c.Forget(2*time.Minute+age, age, all, ends)
		fill(c, 10*time.Minute)
		c.Forget(10*time.Minute, age, all, ends)
		require.True(t, knows(c, young[0], 10*time.Minute))
	})
	t.Run("waits while it is not known where rooms end", func(t *testing.T) {
		c := NewCopies[int](false)
		old := fill(c, 0)
		for minute := range 20 {
			c.Forget(time.Duration(minute)*time.Minute, age, all, func() []int { return nil })
		}
		require.True(t, knows(c, old[0], time.Hour))
	})
	t.Run("is bounded, whatever happens", func(t *testing.T) {
		c := NewCopies[int](false)
		for n := range uint64(3 * copiesLimit) {
			if _, due := c.Add(CopyKey{1, n * 1000}, time.Duration(n)*time.Millisecond); due {
				c.Forget(time.Duration(n)*time.Millisecond, age, none, func() []int { return []int{} })
			}
			require.LessOrEqual(t, c.seen.Len()*once.BlockSize, 4<<20)
		}
	})
}
