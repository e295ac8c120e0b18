package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// three returns three hubs on a bus.
func three(t testing.TB, bus *memory.Bus) (a, b, c *fanout.Hub) {
	return newHub(t, bus, nil), newHub(t, bus, nil), newHub(t, bus, nil)
}

// listed returns the IDs of the members of a selection.
func listed(t testing.TB, s fanout.Selection) (ids []string) {
	t.Helper()
	for m, err := range s.Members(within(t)) {
		require.NoError(t, err)
		ids = append(ids, m.ID)
	}
	return ids
}

func idsOf(members ...*fanout.Member) (ids []string) {
	for _, m := range members {
		ids = append(ids, m.ID())
	}
	return ids
}

func requireCount(t testing.TB, want int, s fanout.Selection) {
	t.Helper()
	n, err := s.Count(within(t))
	require.NoError(t, err)
	require.Equal(t, want, n)
}

func TestCountAndMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := three(t, memory.NewBus())
		ann, bob := connect(t, a, "x"), connect(t, b, "x", "y")
		cat, dan := connect(t, c, "y"), connect(t, c)
		for name, test := range map[string]struct {
			selects fanout.Selection
			want    []*fanout.Member
		}{
			"a room":                      {a.In("x"), []*fanout.Member{ann, bob}},
			"a room of another hub":       {a.In("y"), []*fanout.Member{bob, cat}},
			"rooms, each member once":     {a.In("x", "y"), []*fanout.Member{ann, bob, cat}},
			"everyone":                    {a.Everyone(), []*fanout.Member{ann, bob, cat, dan}},
			"one member":                  {a.To(dan.ID()), []*fanout.Member{dan}},
			"members of several hubs":     {a.To(ann.ID(), cat.ID(), dan.ID()), []*fanout.Member{ann, cat, dan}},
			"all but one":                 {b.Everyone().Except(ann.ID()), []*fanout.Member{bob, cat, dan}},
			"all but a room":              {b.Everyone().ExceptRooms("y"), []*fanout.Member{ann, dan}},
			"a room but another":          {b.In("x").ExceptRooms("y"), []*fanout.Member{ann}},
			"everyone here":               {c.Everyone().Local(), []*fanout.Member{cat, dan}},
			"a room here":                 {a.In("x").Local(), []*fanout.Member{ann}},
			"a room that is not here":     {a.In("y").Local(), nil},
			"an empty room":               {a.In("empty"), nil},
			"a member that is not there":  {a.To(a.ID() + "-99"), nil},
			"a member of no hub of these": {a.To("0123456789abcdef-1"), nil},
		} {
			require.ElementsMatch(t, idsOf(test.want...), listed(t, test.selects), name)
			requireCount(t, len(test.want), test.selects)
		}
	})
}

// Nothing is waited for: the clock of the bubble stands still while somebody
// can run.
func TestQuestionsAreCompleteAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := three(t, memory.NewBus())
		connect(t, b, "x")
		connect(t, c, "x")
		require.NoError(t, a.Ready(within(t)))
		began := time.Now()
		requireCount(t, 2, a.In("x"))
		requireCount(t, 0, a.In("empty"))
		requireCount(t, 2, a.Everyone())
		require.NoError(t, a.In("x").Join(within(t), "y"))
		require.NoError(t, a.In("empty").Leave(within(t), "y"))
		require.Zero(t, time.Since(began))
	})
}

func TestEmptySelectionsAskNobody(t *testing.T) {
	h := newHub(t, nil, nil)
	for _, s := range []fanout.Selection{h.In(), h.To(), {}} {
		_, err := s.Count(t.Context())
		require.ErrorIs(t, err, fanout.ErrEmptySelection)
		require.ErrorIs(t, s.Join(t.Context(), "x"), fanout.ErrEmptySelection)
		for _, err := range s.Members(t.Context()) {
			require.ErrorIs(t, err, fanout.ErrEmptySelection)
		}
	}
	require.ErrorIs(t, h.In("x").Join(t.Context()), fanout.ErrEmptySelection)
	require.ErrorIs(t, h.In("x").Leave(t.Context(), ""), fanout.ErrInvalidRoom)
}

func TestAHubAloneAnswersItself(t *testing.T) {
	h := newHub(t, nil, nil)
	ann, bob := connect(t, h, "x"), connect(t, h, "x", "y")
	require.ElementsMatch(t, idsOf(ann, bob), listed(t, h.In("x")))
	require.NoError(t, h.In("y").Leave(within(t), "x"))
	require.NoError(t, h.In("y").Join(within(t), "z"))
	require.ElementsMatch(t, []string{"y", "z"}, bob.Rooms())
	requireCount(t, 1, h.In("x"))
	requireCount(t, 2, h.Everyone())
}

func TestJoinAndLeaveOfASelection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := three(t, memory.NewBus())
		ann, bob, cat := connect(t, a, "x"), connect(t, b, "x"), connect(t, c, "x")
		t.Log("a room")
		require.NoError(t, a.In("x").Join(within(t), "y", "z"))
		for _, m := range []*fanout.Member{ann, bob, cat} {
			require.ElementsMatch(t, []string{"x", "y", "z"}, m.Rooms())
		}
		t.Log("members that have joined get what is published from then on")
		require.NoError(t, c.Room("y").Publish(within(t), []byte("hi")))
		for _, m := range []*fanout.Member{ann, bob, cat} {
			require.Equal(t, []string{"hi"}, receive(t, m, 1))
		}
		t.Log("one member")
		require.NoError(t, a.To(cat.ID()).Leave(within(t), "x", "never there"))
		require.NoError(t, a.To(cat.ID()).Leave(within(t), "x"))
		require.ElementsMatch(t, []string{"y", "z"}, cat.Rooms())
		t.Log("everyone")
		require.NoError(t, b.Everyone().Leave(within(t), "y", "z", "x"))
		for _, m := range []*fanout.Member{ann, bob, cat} {
			require.Empty(t, m.Rooms())
		}
	})
}

func TestNamesOfQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		a, b, _ := three(t, bus)
		other := newHub(t, bus, &fanout.Options{Prefix: "other"})
		for i, name := range []string{
			"{a}", "[a]", "*", "?", "%7B", "#", "a b", "🎲", "}{", a.ID(), connect(t, b).ID(), "fanout:i:{" + b.ID() + "}", "fanout:a:{everyone}",
		} {
			m := connect(t, b, name)
			connect(t, other, name)
			require.Equal(t, idsOf(m), listed(t, a.In(name)), name)
			require.NoError(t, a.In(name).Join(within(t), name+"'"), name)
			requireCount(t, 1, a.In(name+"'"))
			requireCount(t, i+1, other.Everyone())
		}
	})
}

// A room of many pages, whose asker takes its time.
func TestMembersOfALargeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := three(t, memory.NewBus())
		want := make(map[string]string)
		for i := range 3000 {
			h := []*fanout.Hub{b, c}[i%2]
			info := fmt.Sprintf("%0*d", 400, i)
			m, err := h.Connect(&fanout.MemberOptions{Info: []byte(info)})
			require.NoError(t, err)
			require.NoError(t, h.Room("x").Join(within(t), m))
			want[m.ID()] = info
		}
		t.Log("it is listed in pages")
		got := make(map[string]string)
		for m, err := range a.In("x").Members(within(t)) {
			require.NoError(t, err)
			require.NotContains(t, got, m.ID)
			got[m.ID] = string(m.Info)
			time.Sleep(time.Millisecond)
		}
		require.Equal(t, want, got)
		t.Log("the list may be left early")
		for _, err := range a.In("x").Members(within(t)) {
			require.NoError(t, err)
			break
		}
	})
}

func TestAHubThatIsSilentIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		mute := bus.NewAdapter()
		a, b, c := newHub(t, bus, nil), newHubOn(t, mute, nil), newHub(t, bus, nil)
		connect(t, a, "x")
		connect(t, b, "x")
		connect(t, c, "x")
		require.NoError(t, b.Everyone().Publish(within(t), []byte("heard")))
		time.Sleep(5 * time.Second)
		bus.Intercept(func(_ context.Context, f memory.Frame) memory.Fate {
			if f.Channel == "fanout:i:{"+a.ID()+"}" && f.From == mute {
				return memory.Fate{Drop: true}
			}
			return memory.Fate{}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		n, err := a.In("x").Count(ctx)
		require.Equal(t, 2, n)
		var partial *fanout.PartialError
		require.ErrorAs(t, err, &partial)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Len(t, partial.Silent, 1)
		require.Equal(t, b.ID(), partial.Silent[0].ID)
		require.Equal(t, 3*time.Second, time.Since(began))
	})
}

func TestAHubThatIsCutOffKnowsItsOwnMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		node := bus.NewAdapter()
		a, b := newHubOn(t, node, nil), newHub(t, bus, nil)
		own := connect(t, a, "x", "y")
		connect(t, b, "x")
		time.Sleep(2 * time.Second) // they know of each other
		node.Cut()
		within := func() context.Context {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			t.Cleanup(cancel)
			return ctx
		}
		partial := func(err error) {
			t.Helper()
			var e *fanout.PartialError
			require.ErrorAs(t, err, &e)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			for _, silent := range e.Silent {
				require.NotEqual(t, a.ID(), silent.ID)
			}
		}
		for name, s := range map[string]fanout.Selection{
			"rooms": a.In("x", "y"), "everyone": a.Everyone(), "a member": a.To(own.ID()),
		} {
			n, err := s.Count(within())
			require.Equal(t, 1, n, name)
			partial(err)
		}
		var ids []string
		for m, err := range a.In("x").Members(within()) {
			if err != nil {
				partial(err)
				continue
			}
			ids = append(ids, m.ID)
		}
		require.Equal(t, []string{own.ID()}, ids)
		for range a.In("x").Members(within()) {
			break
		}
		require.Error(t, a.In("x").Join(within(), "z"), "a command waits for its place in the order")
		require.NotContains(t, own.Rooms(), "z")
		node.Heal()
		time.Sleep(5 * time.Second)
		n, err := a.In("x").Count(t.Context())
		require.NoError(t, err)
		require.Equal(t, 2, n)

		node.Cut()
		var last error
		for _, err := range a.In("x").Members(within()) {
			if last = err; err == nil {
				require.NoError(t, a.Close(within()), "in the loop")
			}
		}
		require.ErrorIs(t, last, fanout.ErrClosed)
	})
}

// Its other connection works, so it is not counted where it asks.
func TestAHubWhoseSubscriberIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		node := bus.NewAdapter()
		a, b := newHubOn(t, node, nil), newHub(t, bus, nil)
		own := connect(t, a, "x", "y")
		other := connect(t, b, "x")
		time.Sleep(2 * time.Second) // they know of each other
		node.CutSubscriber()
		t.Log("b names a, and counts its own members")
		for name, s := range map[string]fanout.Selection{"everyone": b.Everyone(), "members": b.To(own.ID(), other.ID())} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			n, err := s.Count(ctx)
			require.Equal(t, 1, n, name)
			var partial *fanout.PartialError
			require.ErrorAs(t, err, &partial, name)
			require.Len(t, partial.Silent, 1, name)
			require.Equal(t, a.ID(), partial.Silent[0].ID, name)
		}
		node.Heal()
		time.Sleep(time.Second)
		node.CutSubscriber()
		t.Log("a knows its own members")
		requireCount(t, 1, a.In("y"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		n, err := a.Everyone().Count(ctx)
		require.Equal(t, 1, n, "b's answer does not arrive")
		require.Error(t, err)
		node.Heal()
		time.Sleep(time.Second)
		t.Log("one that is back in time answers")
		node.CutSubscriber()
		time.AfterFunc(time.Second, node.Heal)
		requireCount(t, 2, b.Everyone())
	})
}

func TestCloseOfASelection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := three(t, memory.NewBus())
		ann, bob, cat, dan := connect(t, a, "x", "y"), connect(t, b, "x"), connect(t, c, "x"), connect(t, c, "y")
		require.NoError(t, a.Room("x").Publish(within(t), []byte("bye")))
		require.NoError(t, a.In("x").Close(within(t), "kicked"))
		t.Log("they are in no room, and cannot join")
		requireCount(t, 0, b.In("x"))
		requireCount(t, 1, b.In("y"))
		requireCount(t, 1, b.Everyone())
		require.Empty(t, bob.Rooms())
		require.ErrorIs(t, b.Room("z").Join(within(t), bob), fanout.ErrClosed)
		require.NoError(t, a.To(bob.ID()).Join(within(t), "z"), "it is not there")
		requireCount(t, 0, a.In("z"))
		t.Log("a message from before arrives first, then the reason")
		for _, m := range []*fanout.Member{ann, bob, cat} {
			require.Equal(t, []string{"bye"}, receive(t, m, 1))
			_, err := m.Receive(within(t))
			var closed *fanout.ClosedError
			require.ErrorAs(t, err, &closed)
			require.Equal(t, &fanout.ClosedError{Reason: "kicked"}, closed)
			require.ErrorIs(t, m.Err(), fanout.ErrClosed)
		}
		t.Log("to close again is harmless")
		require.NoError(t, a.In("x").Close(within(t), ""))
		t.Log("one member")
		require.NoError(t, a.To(dan.ID()).Close(within(t), "you"))
		require.ErrorIs(t, dan.Err(), fanout.ErrClosed)
		t.Log("everyone")
		eve := connect(t, b, "x")
		require.NoError(t, a.Everyone().Close(within(t), "all"))
		require.ErrorIs(t, eve.Err(), fanout.ErrClosed)
		require.ErrorIs(t, a.Everyone().Close(within(t), fmt.Sprintf("%2000d", 1)), fanout.ErrTooLarge)
	})
}

// answers replies to each question of members until they end.
func answers(t testing.TB, members ...*fanout.Member) {
	for _, m := range members {
		go func() {
			for {
				msg, err := m.Receive(context.Background())
				if err != nil {
					return
				}
				if m.IsQuestion(msg) {
					ended, cancel := context.WithCancel(context.Background())
					cancel()
					assert.ErrorIs(t, m.Reply(ended, msg, nil), context.Canceled)
					assert.NoError(t, m.Reply(context.Background(), msg, []byte(string(msg.Data)+" "+m.ID())))
					assert.ErrorIs(t, m.Reply(context.Background(), msg, nil), fanout.ErrNoQuestion, "a second time")
				}
			}
		}()
	}
}

// replies collects the answers to a question.
func replies(ctx context.Context, s fanout.Selection, question string) (got []string, err error) {
	for r, err := range s.Ask(ctx, []byte(question)) {
		if err != nil {
			return got, err
		}
		got = append(got, string(r.Data)+" "+r.Member)
	}
	return got, nil
}

func expected(question string, members ...*fanout.Member) (want []string) {
	for _, id := range idsOf(members...) {
		want = append(want, question+" "+id+" "+id)
	}
	return want
}

func TestAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := three(t, memory.NewBus())
		ann, bob, cat := connect(t, a, "x"), connect(t, b, "x", "y"), connect(t, c, "y")
		answers(t, ann, bob, cat)
		for name, test := range map[string]struct {
			s    fanout.Selection
			want []*fanout.Member
		}{
			"a room":        {a.In("x"), []*fanout.Member{ann, bob}},
			"rooms":         {c.In("x", "y"), []*fanout.Member{ann, bob, cat}},
			"everyone":      {a.Everyone().Except(ann.ID()), []*fanout.Member{bob, cat}},
			"one":           {a.To(cat.ID()), []*fanout.Member{cat}},
			"those here":    {b.In("x").Local(), []*fanout.Member{bob}},
			"an empty room": {a.In("empty"), nil},
		} {
			for _, question := range []string{"well?", ""} {
				got, err := replies(within(t), test.s, question)
				require.NoError(t, err, name)
				require.ElementsMatch(t, expected(question, test.want...), got, name)
			}
		}
	})
}

func TestAskOfMembersThatDoNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _ := three(t, memory.NewBus())
		bob, mute := connect(t, b, "x"), connect(t, b, "x")
		answers(t, bob)
		t.Log("what came is yielded, and the others are counted")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		got, err := replies(ctx, a.In("x"), "1")
		require.Equal(t, expected("1", bob), got)
		var partial *fanout.PartialError
		require.ErrorAs(t, err, &partial)
		require.Equal(t, 1, partial.Unanswered)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		msg, err := mute.Receive(within(t))
		require.NoError(t, err)
		t.Log("here, too")
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		got, err = replies(ctx, b.In("x").Local(), "1")
		require.Equal(t, expected("1", bob), got)
		require.ErrorAs(t, err, &partial)
		require.Equal(t, 1, partial.Unanswered)
		t.Log("an answer that is late is refused")
		time.Sleep(time.Minute)
		require.False(t, mute.IsQuestion(msg))
		require.ErrorIs(t, mute.Reply(within(t), msg, nil), fanout.ErrNoQuestion)
		t.Log("a member that ends is not waited for")
		began := time.Now()
		time.AfterFunc(time.Second, func() { _ = mute.Close() })
		got, err = replies(within(t), a.In("x"), "2")
		require.NoError(t, err)
		require.Equal(t, expected("2", bob), got)
		require.Less(t, time.Since(began), 2*time.Second)
		for what, s := range map[string]fanout.Selection{"asked by another hub": a.In("x", "y"), "here": b.In("x", "y").Local()} {
			t.Log("a member that leaves the rooms is not waited for,", what)
			gone, back, here := connect(t, b, "x"), connect(t, b, "x"), connect(t, b, "x", "y")
			time.AfterFunc(time.Second, func() {
				b.Room("x").Leave(t.Context(), gone)
				b.Room("x").Leave(t.Context(), here) // it is still in another one
				require.NoError(t, b.To(back.ID()).Leave(t.Context(), "x"))
				require.NoError(t, b.Room("x").Join(t.Context(), back)) // too late
			})
			time.AfterFunc(3*time.Second, func() {
				for m, want := range map[*fanout.Member]error{gone: fanout.ErrNoQuestion, back: fanout.ErrNoQuestion, here: nil} {
					msg, err := m.Receive(within(t))
					require.NoError(t, err)
					require.ErrorIs(t, m.Reply(within(t), msg, []byte("3")), want)
				}
			})
			began = time.Now()
			got, err = replies(within(t), s, "3")
			require.NoError(t, err)
			require.Len(t, got, 2)
			require.Less(t, time.Since(began), 4*time.Second)
			for _, m := range []*fanout.Member{gone, back, here} {
				require.NoError(t, m.Close())
			}
		}
		t.Log("an ordinary message is no question")
		require.ErrorIs(t, bob.Reply(within(t), fanout.Message{}, nil), fanout.ErrNoQuestion)
	})
}

func TestAHubThatEndsDoesNotFailTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		a, b := newHub(t, bus, nil), newHub(t, bus, nil)
		bob := connect(t, b, "x")
		answers(t, bob)
		c, err := fanout.New(bus.NewAdapter(), nil)
		require.NoError(t, err)
		connect(t, c, "x") // does not answer
		time.AfterFunc(time.Second, func() { assert.NoError(t, c.Close(context.Background())) })
		began := time.Now()
		got, err := replies(within(t), a.In("x"), "1")
		require.NoError(t, err)
		require.Equal(t, expected("1", bob), got)
		require.Less(t, time.Since(began), 6*time.Second)
		requireCount(t, 1, a.In("x"))
	})
}

// A command whose answer is lost is sent again.
func TestCommandsAreSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		a, b, c := three(t, bus)
		ann, bob, cat := connect(t, a, "x"), connect(t, b, "x"), connect(t, c, "x")
		rnd := rand.New(rand.NewPCG(1, 2))
		var mu sync.Mutex
		bus.Intercept(func(_ context.Context, f memory.Frame) memory.Fate {
			mu.Lock()
			defer mu.Unlock()
			return memory.Fate{Drop: f.Channel == "fanout:i:{"+a.ID()+"}" && rnd.IntN(2) == 0}
		})
		defer bus.Intercept(nil)
		for i := range 20 {
			room := fmt.Sprint(i)
			require.NoError(t, a.In("x").Join(within(t), room), room)
			for _, m := range []*fanout.Member{ann, bob, cat} {
				require.Contains(t, m.Rooms(), room)
			}
		}
	})
}

func TestUsersAcrossHubs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := three(t, memory.NewBus())
		join := func(h *fanout.Hub, user, info string) *fanout.Member {
			m, err := h.Connect(&fanout.MemberOptions{User: user, Info: []byte(info)})
			require.NoError(t, err)
			require.NoError(t, h.Room("x").Join(within(t), m))
			return m
		}
		ann1, ann2, bob := join(a, "ann", "1"), join(b, "ann", "2"), join(c, "bob", "")
		connect(t, c, "x")
		t.Log("members of a user")
		require.ElementsMatch(t, idsOf(ann1, ann2), listed(t, c.User("ann")))
		requireCount(t, 3, c.User("ann", "bob", "cat"))
		requireCount(t, 1, b.User("ann").Local())
		t.Log("users of a room")
		got := make(map[string]fanout.UserInfo)
		for u, err := range b.In("x").Users(within(t)) {
			require.NoError(t, err)
			got[u.User] = u
		}
		require.Len(t, got, 2)
		require.Equal(t, 2, got["ann"].Connections)
		require.ElementsMatch(t, [][]byte{[]byte("1"), []byte("2")}, got["ann"].Info)
		require.Equal(t, fanout.UserInfo{User: "bob", Connections: 1, Since: got["bob"].Since}, got["bob"])
		t.Log("a question to a user")
		answers(t, ann1, ann2)
		replied, err := replies(within(t), c.User("ann"), "?")
		require.NoError(t, err)
		require.ElementsMatch(t, expected("?", ann1, ann2), replied)
		t.Log("a user is moved, and closed on all hubs")
		require.NoError(t, c.User("ann").Join(within(t), "y"))
		requireCount(t, 2, c.In("y"))
		require.NoError(t, c.User("ann").Close(within(t), "logout"))
		requireCount(t, 0, c.User("ann"))
		require.Equal(t, []string{"x"}, bob.Rooms())
	})
}

func TestHubs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		a, b, c := three(t, bus)
		newHub(t, bus, &fanout.Options{Prefix: "other"})
		connect(t, b, "x", "y")
		require.NoError(t, c.Ready(within(t)))
		connect(t, a, "x")
		got := make(map[string]fanout.HubInfo)
		for h, err := range a.Hubs(within(t)) {
			require.NoError(t, err)
			require.False(t, h.Since.IsZero())
			got[h.ID] = fanout.HubInfo{Members: h.Members, Rooms: h.Rooms}
		}
		require.Equal(t, map[string]fanout.HubInfo{
			a.ID(): {Members: 1, Rooms: 1}, b.ID(): {Members: 1, Rooms: 2}, c.ID(): {},
		}, got)
	})
}

func TestJoinOfASelectionAsksForAdmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus()
		a := newHub(t, bus, nil)
		b := newHub(t, bus, &fanout.Options{Admit: func(_ context.Context, room string, m *fanout.Member) error {
			if room == "y" && m.User() == "ann" {
				return errors.New("banned")
			}
			return nil
		}})
		ann, err := b.Connect(&fanout.MemberOptions{User: "ann"})
		require.NoError(t, err)
		require.NoError(t, b.Room("x").Join(within(t), ann))
		bob := connect(t, b, "x")
		require.NoError(t, a.In("x").Join(within(t), "y"))
		require.Equal(t, idsOf(bob), listed(t, a.In("y")))
		require.Equal(t, []string{"x"}, ann.Rooms())
	})
}

// The body of a loop over answers is the caller's: it may close the hub.
func TestHubCloseInALoop(t *testing.T) {
	loops := map[string]func(ctx context.Context, h *fanout.Hub, s fanout.Selection, body func()) error{
		"Members": func(ctx context.Context, _ *fanout.Hub, s fanout.Selection, body func()) (last error) {
			for _, last = range s.Members(ctx) {
				body()
			}
			return last
		},
		"Users": func(ctx context.Context, _ *fanout.Hub, s fanout.Selection, body func()) (last error) {
			for _, last = range s.Users(ctx) {
				body()
			}
			return last
		},
		"Hubs": func(ctx context.Context, h *fanout.Hub, _ fanout.Selection, body func()) (last error) {
			for _, last = range h.Hubs(ctx) {
				body()
			}
			return last
		},
		"Ask": func(ctx context.Context, _ *fanout.Hub, s fanout.Selection, body func()) (last error) {
			for _, last = range s.Ask(ctx, []byte("?")) {
				body()
			}
			return last
		},
	}
	for name, loop := range loops {
		for where, bus := range map[string]*memory.Bus{"alone": nil, "of three": memory.NewBus()} {
			for _, local := range []bool{false, true} {
				t.Run(fmt.Sprint(name, " ", where, ", local ", local), func(t *testing.T) {
					h := newHub(t, bus, nil)
					var others []*fanout.Hub
					if bus != nil {
						others = append(others, newHub(t, bus, nil), newHub(t, bus, nil))
					}
					var answering sync.WaitGroup
					for _, hub := range append(others, h) {
						for range 3 {
							m := connectUser(t, hub, "ann")
							require.NoError(t, hub.Room("x").Join(within(t), m))
							answering.Go(func() {
								for msg, err := range m.Messages(context.Background()) {
									if err == nil && m.IsQuestion(msg) {
										_ = m.Reply(context.Background(), msg, nil)
									}
								}
							})
						}
					}
					s := h.In("x")
					if local {
						s = s.Local()
					}
					closes := sync.OnceValue(func() error { return h.Close(within(t)) })
					err := loop(within(t), h, s, func() { require.NoError(t, closes()) })
					if err != nil {
						require.ErrorIs(t, err, fanout.ErrClosed)
					}
					for _, hub := range others {
						require.NoError(t, hub.Close(within(t)))
					}
					answering.Wait()
				})
			}
		}
	}
}
