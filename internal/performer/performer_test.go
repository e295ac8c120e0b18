package performer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/notices"
	"github.com/fanoutgo/fanout/internal/questions"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/stretchr/testify/require"
)

const hubID = "00000000000000aa"

var names = wire.Names{Prefix: "test"}

// A hub has members in rooms, and notes what is done.
type hub struct {
	Performer
	board   questions.Switchboard
	members map[uint64]*member
	done    []string
	looked  bool // at a member
}

type member struct {
	hub     *hub
	number  uint64
	user    string
	rooms   []string
	ended   bool
	refuses error // to join
	deaf    bool  // it gets no messages
	leaves  bool  // it leaves its rooms before it gets a message
}

func (m *member) note(format string, args ...any) {
	m.hub.done = append(m.hub.done, fmt.Sprintf("%d ", m.number)+fmt.Sprintf(format, args...))
}

func (m *member) Number() uint64           { return m.number }
func (m *member) Entry() control.Entry     { return control.Entry{Number: m.number} }
func (m *member) IsIn(channel string) bool { return slices.ContainsFunc(m.rooms, isRoom(channel)) }
func (m *member) Leave(room string)        { m.note("leaves %s", room) }

func (m *member) Ended() bool {
	m.hub.looked = true
	return m.ended
}

func (m *member) Finish(reason string, place any) { m.note("finishes: %s at %v", reason, place) }

func (m *member) Join(_ context.Context, room string) error {
	if m.refuses == nil {
		m.note("joins %s", room)
	}
	return m.refuses
}

func (m *member) Send(from uint64, data []byte) bool {
	m.note("gets %s of %d", data, from)
	switch {
	case m.deaf:
		return false
	case m.leaves:
		m.rooms = nil
		return true
	}
	time.AfterFunc(time.Duration(m.number)*time.Second, func() {
		_, _ = m.hub.board.PollOf(data).Reply(context.Background(), control.Entry{Number: m.number, Data: []byte("yes")})
	})
	return true
}

func isRoom(channel string) func(string) bool {
	return func(name string) bool { return names.Room(name) == channel }
}

type room struct {
	hub     *hub
	channel string
}

func (r room) Channel() string { return r.channel }
func (r room) Count() int      { return len(r.members()) }
func (r room) Expel()          { r.hub.done = append(r.hub.done, "expels") }

func (r room) Walk(ctx context.Context, f func(Member) error) error {
	for _, m := range r.members() {
		if err := f(m); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

func (r room) members() (all []*member) {
	for _, n := range r.hub.numbers() {
		if m := r.hub.members[n]; m.IsIn(r.channel) {
			all = append(all, m)
		}
	}
	return all
}

// numbers returns the numbers of all members, sorted.
func (h *hub) numbers() (all []uint64) {
	for n := range h.members {
		all = append(all, n)
	}
	slices.Sort(all)
	return all
}

// newHub returns a hub with members 1 to 5:
//
//	1  ann   a
//	2  ann   a b
//	3  bob     b
//	4  bob
//	5        a b c   has ended
func newHub() *hub {
	h := &hub{members: make(map[uint64]*member)}
	for i, m := range []member{
		{user: "ann", rooms: []string{"a"}},
		{user: "ann", rooms: []string{"a", "b"}},
		{user: "bob", rooms: []string{"b"}},
		{user: "bob"},
		{rooms: []string{"a", "b", "c"}, ended: true},
	} {
		m.hub, m.number = h, uint64(i+1)
		h.members[m.number] = &m
	}
	h.board.Init(&questions.Env{Notices: &notices.Sender{}})
	h.Init(&Env{
		ID: hubID, Names: names, Numbers: h.numbers, Poll: h.board.Poll,
		NumbersOf: func(user string) (all []uint64) {
			for _, n := range h.numbers() {
				if h.members[n].user == user {
					all = append(all, n)
				}
			}
			return all
		},
		Member: func(n uint64) Member {
			if m := h.members[n]; m != nil {
				return m
			}
			return nil
		},
		Room: func(channel string) Room {
			for _, m := range h.members {
				if m.IsIn(channel) {
					return room{h, channel}
				}
			}
			return nil
		},
		Describe: func() control.Entry { return control.Entry{Count: uint64(len(h.members)), Number: 3} },
	})
	return h
}

// A taker keeps the entries of an answer.
type taker struct {
	entries []control.Entry
	full    error // of Put
}

func (t *taker) Put(e *control.Entry) error {
	if t.full == nil {
		t.entries = append(t.entries, *e)
	}
	return t.full
}

func (*taker) Flush(uint64) error { return nil }
func (*taker) Rest()              {}

func (t *taker) numbers() (all []uint64) {
	for _, e := range t.entries {
		all = append(all, e.Number)
	}
	return all
}

func id(number uint64) string { return item.MemberID(hubID, number) }

func TestPerformSelects(t *testing.T) {
	elsewhere := item.MemberID("00000000000000bb", 1)
	for name, test := range map[string]struct {
		q    control.Question
		want []uint64
	}{
		"a room":                       {control.Question{Names: []string{"a"}}, []uint64{1, 2}},
		"each member of rooms once":    {control.Question{Names: []string{"b", "none", "a"}}, []uint64{2, 3, 1}},
		"no member that has ended":     {control.Question{Names: []string{"c"}}, nil},
		"users":                        {control.Question{Scope: control.ScopeUsers, Names: []string{"bob", "eve"}}, []uint64{3, 4}},
		"members, if they are here":    {control.Question{Scope: control.ScopeMembers, Names: []string{id(4), elsewhere, id(2), id(9)}}, []uint64{2, 4}},
		"everyone":                     {control.Question{Scope: control.ScopeEveryone}, []uint64{1, 2, 3, 4}},
		"nobody that is excepted":      {control.Question{Scope: control.ScopeEveryone, Except: []string{id(2), elsewhere}}, []uint64{1, 3, 4}},
		"no members of excepted rooms": {control.Question{Names: []string{"a"}, ExceptRooms: []string{"b", "none"}}, []uint64{1}},
	} {
		t.Run(name, func(t *testing.T) {
			h, list := newHub(), new(taker)
			q := test.q
			q.Op = control.OpMembers
			count, err := h.Perform(t.Context(), 7, &q, nil, list)
			require.NoError(t, err)
			require.Equal(t, test.want, list.numbers())
			require.EqualValues(t, len(test.want), count)
		})
	}
}

func TestPerformCounts(t *testing.T) {
	for name, test := range map[string]struct {
		q      control.Question
		want   uint64
		looked bool
	}{
		"a room without a look":                  {control.Question{Names: []string{"b", "none"}}, 3, false},
		"everyone without a look":                {control.Question{Scope: control.ScopeEveryone}, 5, false},
		"several rooms by their members":         {control.Question{Names: []string{"a", "b"}}, 3, true},
		"a room without some by its members":     {control.Question{Names: []string{"b"}, Except: []string{id(2)}}, 1, true},
		"everyone but a room by all the members": {control.Question{Scope: control.ScopeEveryone, ExceptRooms: []string{"a"}}, 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub()
			test.q.Op = control.OpCount
			count, err := h.Perform(t.Context(), 7, &test.q, nil, nil)
			require.NoError(t, err)
			require.Equal(t, test.want, count)
			require.Equal(t, test.looked, h.looked)
		})
	}
}

func TestPerformCommands(t *testing.T) {
	perform := func(t *testing.T, h *hub, q control.Question) (count uint64, err error) {
		q.Names, q.Rooms, q.Text = []string{"a"}, []string{"x", "y"}, []byte("bye")
		return h.Perform(t.Context(), 7, &q, "here", nil)
	}
	t.Run("joins rooms", func(t *testing.T) {
		h := newHub()
		count, err := perform(t, h, control.Question{Op: control.OpJoin})
		require.NoError(t, err)
		require.EqualValues(t, 2, count)
		require.Equal(t, []string{"1 joins x", "1 joins y", "2 joins x", "2 joins y"}, h.done)
	})
	t.Run("returns the first error when all have tried to join", func(t *testing.T) {
		h := newHub()
		h.members[1].refuses = errors.New("refused")
		count, err := perform(t, h, control.Question{Op: control.OpJoin})
		require.Equal(t, h.members[1].refuses, err)
		require.EqualValues(t, 2, count)
		require.Equal(t, []string{"2 joins x", "2 joins y"}, h.done)
	})
	t.Run("stops joining when its context ends", func(t *testing.T) {
		h := newHub()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		q := control.Question{Op: control.OpJoin, Scope: control.ScopeEveryone, Rooms: []string{"x"}}
		_, err := h.Perform(ctx, 7, &q, nil, nil)
		require.ErrorIs(t, err, context.Canceled)
		require.Len(t, h.done, 1)
	})
	t.Run("leaves rooms, after Expel", func(t *testing.T) {
		h := newHub()
		_, err := perform(t, h, control.Question{Op: control.OpLeave})
		require.NoError(t, err)
		require.Equal(t, []string{"expels", "1 leaves x", "1 leaves y", "2 leaves x", "2 leaves y"}, h.done)
	})
	t.Run("finishes members at a place, after Expel", func(t *testing.T) {
		h := newHub()
		_, err := perform(t, h, control.Question{Op: control.OpClose})
		require.NoError(t, err)
		require.Equal(t, []string{"expels", "1 finishes: bye at here", "2 finishes: bye at here"}, h.done)
	})
	t.Run("does not understand commands of later releases", func(t *testing.T) {
		_, err := perform(t, newHub(), control.Question{Op: 99})
		require.Equal(t, questions.ErrNotUnderstood, err)
	})
}

func TestPerformHubs(t *testing.T) {
	list := new(taker)
	count, err := newHub().Perform(t.Context(), 7, &control.Question{Op: control.OpHubs, Scope: control.ScopeEveryone}, nil, list)
	require.NoError(t, err)
	require.EqualValues(t, 1, count)
	require.Equal(t, []control.Entry{{Count: 5, Number: 3}}, list.entries)
}

func TestPerformMembers(t *testing.T) {
	full := errors.New("nobody waits")
	for _, scope := range []control.Scope{control.ScopeRooms, control.ScopeEveryone} {
		q := control.Question{Op: control.OpMembers, Scope: scope, Names: []string{"a"}}
		count, err := newHub().Perform(t.Context(), 7, &q, nil, &taker{full: full})
		require.Equal(t, full, err)
		require.EqualValues(t, 1, count, "it stops at once")
	}
}

func TestPerformAsk(t *testing.T) {
	question := control.Question{Op: control.OpAsk, Names: []string{"a", "b"}, Data: []byte("well?")}
	t.Run("collects the answers of members that have got the question", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h, list := newHub(), new(taker)
			h.members[1].deaf = true
			begun := time.Now()
			count, err := h.Perform(t.Context(), 7, &question, nil, list)
			require.NoError(t, err)
			require.EqualValues(t, 3, count)
			require.Equal(t, []uint64{2, 3}, list.numbers())
			require.Equal(t, 3*time.Second, time.Since(begun).Truncate(time.Second))
			require.Equal(t, []string{"1 gets well? of 7", "2 gets well? of 7", "3 gets well? of 7"}, h.done)
			require.Zero(t, h.board.Pending())
		})
	})
	t.Run("does not wait for members that leave the rooms", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h, list := newHub(), new(taker)
			h.members[1].leaves = true // when it gets the question
			h.members[2].rooms = []string{"b"}
			time.AfterFunc(time.Second, func() {
				h.members[3].rooms = nil
				h.board.MemberLeft(3, h.members[3].IsIn)
			})
			count, err := h.Perform(t.Context(), 7, &question, nil, list)
			require.NoError(t, err)
			require.EqualValues(t, 3, count)
			require.Equal(t, []uint64{2}, list.numbers())
		})
	})
	t.Run("ends at once if nobody is selected", func(t *testing.T) {
		q := question
		q.Names = []string{"none"}
		h := newHub()
		count, err := h.Perform(t.Context(), 7, &q, nil, nil)
		require.NoError(t, err)
		require.Zero(t, count)
		require.Zero(t, h.board.Pending())
	})
}
