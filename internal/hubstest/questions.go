package hubstest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// lists has each hub list and count members of all hubs, in all ways.
func lists(t *testing.T, x *hubs) {
	ann, also := x.enter(t, 0, "ann", "room"), x.enter(t, 1, "ann", "room", "other")
	bob, bobToo := x.enter(t, 1, "bob", "other"), x.enter(t, 1, "bob") // on one hub
	nameless := x.enter(t, 2, "", "room")
	alone := x.enter(t, 2, "")
	type members = []*fanout.Member
	for i, h := range x.all {
		for name, test := range map[string]struct {
			s    fanout.Selection
			want members
		}{
			"everyone":                   {h.Everyone(), members{ann, also, bob, bobToo, nameless, alone}},
			"a room":                     {h.In("room"), members{ann, also, nameless}},
			"rooms, each member once":    {h.In("room", "other"), members{ann, also, bob, nameless}},
			"a room but those of a room": {h.In("room").ExceptRooms("other"), members{ann, nameless}},
			"a user":                     {h.User("ann"), members{ann, also}},
			"a user of one hub":          {h.User("bob"), members{bob, bobToo}},
			"users":                      {h.User("ann", "bob", "nobody"), members{ann, also, bob, bobToo}},
			"one":                        {h.To(alone.ID()), members{alone}},
			"some":                       {h.To(ids(ann, also, bob, alone)...), members{ann, also, bob, alone}},
			"everyone but one":           {h.Everyone().Except(bob.ID()), members{ann, also, bobToo, nameless, alone}},
			"everyone here":              {h.Everyone().Local(), []members{{ann}, {also, bob, bobToo}, {nameless, alone}}[i]},
			"those of a room here":       {h.In("room").Local(), []members{{ann}, {also}, {nameless}}[i]},
			"those of a user here":       {h.User("ann").Local(), []members{{ann}, {also}, nil}[i]},
		} {
			requireMembers(t, test.s, ids(test.want...), "%s, as hub %d sees it", name, i)
		}
		connections := make(map[string]int)
		for u, err := range h.In("room", "other").Users(within(t)) {
			require.NoError(t, err)
			connections[u.User] = u.Connections
		}
		require.Equal(t, map[string]int{"ann": 2, "bob": 1}, connections)
		hubs := make(map[string]int)
		for info, err := range h.Hubs(within(t)) {
			require.NoError(t, err)
			hubs[info.ID] = info.Members
		}
		require.Equal(t, map[string]int{x.all[0].ID(): 1, x.all[1].ID(): 3, x.all[2].ID(): 2}, hubs)
	}
	t.Log("a list of several pages of each hub")
	want, got := make(map[string]string), make(map[string]string)
	for i := range 90 {
		info := strings.Repeat(string(rune('0'+i)), fanout.MaxInfo)
		m, err := x.all[i%3].Connect(&fanout.MemberOptions{Info: []byte(info[:fanout.MaxInfo])})
		require.NoError(t, err)
		require.NoError(t, x.all[i%3].Room("large").Join(within(t), m))
		want[m.ID()] = info[:8]
	}
	for m, err := range x.all[0].In("large").Members(within(t)) {
		require.NoError(t, err)
		require.NotContains(t, got, m.ID)
		require.Len(t, m.Info, fanout.MaxInfo)
		got[m.ID] = string(m.Info[:8])
	}
	require.Equal(t, want, got)
}

// atOnce is longer than a question takes that waits for nothing, on a machine
// that is not busy at the moment.
const atOnce = 50 * time.Millisecond

func nobody(t *testing.T, x *hubs) {
	x.enter(t, 1, "ann", "room")
	h := x.all[0]
	drain := func(n int, err error) func() error {
		return func() error {
			if n > 0 {
				return fmt.Errorf("%d have answered", n)
			}
			return err
		}
	}
	for name, s := range map[string]fanout.Selection{
		"an empty room": h.In("empty"), "a user who is not there": h.User("nobody"),
		"a member that is gone": h.To(h.ID() + "-999"), "an empty room here": h.In("empty").Local(),
	} {
		for what, call := range map[string]func(ctx context.Context) error{
			"Count":   func(ctx context.Context) error { return drain(s.Count(ctx))() },
			"Members": func(ctx context.Context) error { return drain(length(s.Members(ctx)))() },
			"Users":   func(ctx context.Context) error { return drain(length(s.Users(ctx)))() },
			"Ask":     func(ctx context.Context) error { return drain(length(s.Ask(ctx, []byte("anybody?"))))() },
			"Join":    func(ctx context.Context) error { return s.Join(ctx, "elsewhere") },
			"Leave":   func(ctx context.Context) error { return s.Leave(ctx, "elsewhere") },
			"Close":   func(ctx context.Context) error { return s.Close(ctx, "nobody") },
		} {
			require.Eventually(t, func() bool {
				began := time.Now()
				require.NoError(t, call(within(t)), "%s of %s", what, name)
				return time.Since(began) < atOnce
			}, 10*time.Second, time.Millisecond, "%s of %s is complete at once", what, name)
		}
	}
}

// length returns the number of things that a loop yields.
func length[T any](list func(func(T, error) bool)) (n int, err error) {
	for _, err := range list {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// Answer makes members answer questions, each with its ID, until they end.
func Answer(t testing.TB, members ...*fanout.Member) {
	var answering sync.WaitGroup
	for _, m := range members {
		answering.Go(func() {
			for msg, err := range m.Messages(context.Background()) {
				if err == nil && m.IsQuestion(msg) {
					_ = m.Reply(context.Background(), msg, []byte(m.ID())) // the asker checks it
				}
			}
		})
	}
	t.Cleanup(func() {
		for _, m := range members {
			_ = m.Close()
		}
		answering.Wait()
	})
}

// replies asks, and returns the IDs of those that have answered with them.
func replies(ctx context.Context, s fanout.Selection) (got []string, err error) {
	for r, err := range s.Ask(ctx, []byte("well?")) {
		if err != nil {
			return got, err
		}
		if r.Member == string(r.Data) {
			got = append(got, r.Member)
		}
	}
	return got, nil
}

// Each hub asks questions that end in all possible ways.
func leftovers(t *testing.T, x *hubs) {
	var members, mutes []*fanout.Member
	for i := range x.all {
		members = append(members, x.enter(t, i, "ann", "answers"))
		mutes = append(mutes, x.enter(t, i, "", "mute"))
	}
	Answer(t, members...)
	var asking sync.WaitGroup
	for _, h := range x.all {
		for range 4 {
			asking.Go(func() {
				got, err := replies(within(t), h.In("answers"))
				if err != nil || len(got) != 3 {
					t.Errorf("answers of %v: %v", got, err)
				}
				for _, err := range h.In("answers").Members(within(t)) { // the loop is left early
					if err != nil {
						t.Error(err)
					}
					break
				}
				for range h.In("answers").Ask(within(t), nil) {
					break
				}
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				defer cancel()
				_, err = replies(ctx, h.In("mute"))
				if partial := new(fanout.PartialError); !errors.As(err, &partial) {
					t.Errorf("of the mute: %v", err)
				}
			})
		}
	}
	asking.Wait()
	for _, m := range mutes {
		buf := make([]fanout.Message, 100)
		n, err := m.TryReceiveBatch(buf)
		require.NoError(t, err)
		require.Positive(t, n)
		for _, msg := range buf[:n] {
			require.Eventually(t, func() bool { return !m.IsQuestion(msg) }, 20*time.Second, 5*time.Millisecond)
			require.ErrorIs(t, m.Reply(within(t), msg, nil), fanout.ErrNoQuestion)
		}
	}
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		assert.Empty(c, x.goroutines(t, "internal/questions."))
	}, 20*time.Second, 20*time.Millisecond, "nothing is asked, and nobody answers")
}

// moving asks and commands members in a room that moves a few times. Its
// members stay the same meanwhile.
func moving(t *testing.T, x *hubs) {
	if x.backend.Move == nil {
		t.Skip("rooms have no server of their own")
	}
	const room = "watched, moving"
	var members []*fanout.Member
	var lists []*List
	for i := range x.all {
		members = append(members, x.enter(t, i, fmt.Sprint("user ", i), room))
		lists = append(lists, Watch(t, members[i]))
	}
	stop := make(chan struct{})
	var asking sync.WaitGroup
	asked := 0
	asking.Go(func() {
		for ; ; asked++ {
			select {
			case <-stop:
				return
			default:
			}
			began := time.Now()
			n, err := x.all[0].In(room).Count(within(t))
			if took := time.Since(began); err != nil || n > 3 || took > 10*time.Second {
				t.Errorf("counted %d after %v: %v", n, took, err)
				return
			}
		}
	})
	commanded := 0
	command := func() {
		next := fmt.Sprint("elsewhere ", commanded)
		commanded++
		require.NoError(t, x.all[0].In(room).Join(within(t), next))
		for i, m := range members {
			require.Contains(t, m.Rooms(), next, "a command reaches hub %d, a move or not", i)
		}
		require.NoError(t, x.all[0].In(room).Leave(within(t), next))
	}
	for range 4 {
		moved := make(chan error, 1)
		go func() { moved <- x.backend.Move(t.Context(), x.prefix+":r:{"+room+"}") }()
		for len(moved) == 0 {
			command()
		}
		require.NoError(t, <-moved)
		command()
	}
	t.Logf("%d commands", commanded)
	close(stop)
	asking.Wait()
	require.Positive(t, asked)
	require.Eventually(t, func() bool {
		n, err := x.all[0].In(room).Count(within(t))
		return err == nil && n == 3
	}, 20*time.Second, 10*time.Millisecond)
	for _, l := range lists {
		require.Empty(t, l.Left())
	}
}

// goroutines returns the stacks of these hubs' goroutines that are in a
// function whose name contains a text.
func (x *hubs) goroutines(t testing.TB, text string) (stacks []string) {
	for _, stack := range strings.Split(profile(t), "\n\n") {
		if strings.Contains(stack, fmt.Sprintf("%q:%q", label, x.prefix)) && strings.Contains(stack, text) {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}
