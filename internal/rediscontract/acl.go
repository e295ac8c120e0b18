package rediscontract

import (
	"context"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// right is a line of the rights in a package's doc.
var right = regexp.MustCompile(`(?m)^//\t([a-z]+):\s+([&~+].*)$`)

// RunACL tests the rights that a package's doc names on servers of all
// versions: a user with these rights can join, publish, receive and keep a
// history, and the server denies nothing meanwhile. It runs in parallel with
// other tests.
func RunACL(t *testing.T, file string, newAdapter NewAdapter) {
	t.Parallel()
	rights := Rights(t, file)
	for _, what := range []string{"always", "cluster", "history", "scripts", "limits", "named"} {
		require.NotEmpty(t, rights[what], what)
	}
	scripts := slices.Concat(rights["scripts"], slices.DeleteFunc(slices.Clone(rights["history"]), func(r string) bool {
		return r == "+fcall" || r == "+function|load"
	}))
	redistest.OnImages(t, func(t *testing.T, image string) {
		all := slices.Concat(rights["limits"], rights["always"])
		if image != redistest.Redis70 {
			all = append(all, rights["named"]...)
		}
		t.Run("server", func(t *testing.T) {
			s := redistest.NewServer(t, redistest.Options{Image: image})
			runACL(t, s, []*redistest.Node{s.Node}, all, rights["history"], scripts, newAdapter)
		})
		t.Run("cluster", func(t *testing.T) {
			c := redistest.NewCluster(t, redistest.Options{Image: image})
			runACL(t, c, c.Nodes(), slices.Concat(all, rights["cluster"]), rights["history"], scripts, newAdapter)
		})
		t.Run("least", func(t *testing.T) {
			s := redistest.NewServer(t, redistest.Options{Image: image})
			runACL(t, s, nil, nil, nil, nil, newAdapter) // with all rights, to prove that the test itself works
			setUser(t, []*redistest.Node{s.Node}, "least", rights["always"])
			speak(t, as(t, s, "least"), 0, newAdapter)
		})
	})
}

// Rights returns the rights in a package's doc, by what they are for.
func Rights(t testing.TB, file string) map[string][]string {
	t.Helper()
	source, err := os.ReadFile(file)
	require.NoError(t, err)
	rights := make(map[string][]string)
	for _, m := range right.FindAllStringSubmatch(string(source), -1) {
		rights[m[1]] = append(rights[m[1]], strings.Fields(m[2])...)
	}
	return rights
}

func as(t testing.TB, s servers, user string) rueidis.Client {
	return s.Client(t, func(o *rueidis.ClientOption) { o.Username, o.Password = user, "secret" })
}

func setUser(t testing.TB, nodes []*redistest.Node, user string, rights []string) {
	t.Helper()
	for _, n := range nodes {
		args := append([]string{"ACL", "SETUSER", user, "on", ">secret", "resetchannels", "-@all"}, rights...)
		require.NoError(t, n.Do(t.Context(), args...).Error())
	}
}

// runACL runs a user with rights, and another one who has those for histories
// as well. If nodes is nil the rights stay as they are.
func runACL(t *testing.T, s servers, nodes []*redistest.Node, rights, history, scripts []string, newAdapter NewAdapter) {
	if nodes == nil {
		speak(t, s.Client(t), 10, newAdapter)
		return
	}
	setUser(t, nodes, "plain", rights)
	setUser(t, nodes, "history", slices.Concat(rights, history))
	speak(t, as(t, s, "plain"), 0, newAdapter)
	speak(t, as(t, s, "history"), 10, newAdapter)
	defer func() { // which tries functions first, and is denied them
		setUser(t, nodes, "scripts", slices.Concat(rights, scripts))
		speak(t, as(t, s, "scripts"), 10, newAdapter)
	}()
	for _, n := range nodes {
		denied, err := n.Do(t.Context(), "ACL", "LOG").ToArray()
		require.NoError(t, err)
		for _, d := range denied {
			entry, err := d.AsStrMap()
			require.NoError(t, err)
			t.Errorf("denied: %v", entry)
		}
	}
}

// speak makes a hub do everything that hubs do.
func speak(t testing.TB, client rueidis.Client, keep int, newAdapter NewAdapter) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	a, err := newAdapter(client)
	require.NoError(t, err)
	o := &fanout.Options{Linger: -1}
	if keep > 0 {
		o.Room = func(string) fanout.RoomOptions { return fanout.RoomOptions{Retain: adapter.Retention{Messages: keep}} }
	}
	h, err := fanout.New(a, o)
	require.NoError(t, err)
	m, err := h.Connect(nil)
	require.NoError(t, err)
	room := h.Room("x")
	require.NoError(t, room.Join(ctx, m))
	for range 200 { // enough to trim the history
		require.NoError(t, room.Publish(ctx, []byte("hello")))
		_, err := m.Receive(ctx)
		require.NoError(t, err)
	}
	require.NoError(t, h.To(m.ID()).Publish(ctx, []byte("hello")))
	require.NoError(t, h.Everyone().Publish(ctx, []byte("hello")))
	if keep > 0 {
		again, err := h.Connect(nil)
		require.NoError(t, err)
		require.NoError(t, room.Resume(ctx, again, fanout.Position{}))
		for range keep {
			_, err := again.Receive(ctx)
			require.NoError(t, err)
		}
	}
	require.NoError(t, room.Leave(ctx, m))
	require.NoError(t, h.Health(ctx))
	require.NoError(t, h.Close(ctx))
}
