package sharded_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// keeping returns a hub whose rooms keep the given number of messages.
func keeping(t testing.TB, client rueidis.Client, messages int) *fanout.Hub {
	t.Helper()
	a, err := newAdapter(client)
	require.NoError(t, err)
	o := new(fanout.Options)
	if messages > 0 {
		o.Room = func(string) fanout.RoomOptions {
			return fanout.RoomOptions{Retain: fanout.Retention{Messages: messages, Age: time.Hour}}
		}
	}
	h, err := fanout.New(a, o)
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := h.Close(within(t)); err != nil {
			t.Error(err)
		}
	})
	return h
}

func say(t testing.TB, r *fanout.Room, first, last int) {
	t.Helper()
	for n := first; n <= last; n++ {
		require.NoError(t, r.Publish(within(t), fmt.Append(nil, n)))
	}
}

// hear takes n messages and fails at a gap.
func hear(t testing.TB, m *fanout.Member, n int) (texts []string, at fanout.Position) {
	t.Helper()
	for range n {
		msg, err := m.Receive(within(t))
		require.NoError(t, err)
		require.True(t, at.Before(msg.Position))
		texts, at = append(texts, string(msg.Data)), msg.Position
	}
	return texts, at
}

func count(first, last int) (list []string) {
	for n := first; n <= last; n++ {
		list = append(list, fmt.Sprint(n))
	}
	return list
}

func member(t testing.TB, h *fanout.Hub) *fanout.Member {
	t.Helper()
	m, err := h.Connect(nil)
	require.NoError(t, err)
	return m
}

func TestHistory(t *testing.T) {
	onClusters(t, func(t *testing.T, c *redistest.Cluster) {
		a, b := keeping(t, c.Client(t), 20), keeping(t, c.Client(t), 20)
		name := "history of " + t.Name()
		live := member(t, a)
		require.NoError(t, a.Room(name).Join(within(t), live))
		say(t, b.Room(name), 1, 10)
		got, at := hear(t, live, 10)
		require.Equal(t, count(1, 10), got)
		say(t, a.Room(name), 11, 25)

		m := member(t, b)
		require.NoError(t, b.Room(name).Resume(within(t), m, at))
		say(t, b.Room(name), 26, 30)
		got, _ = hear(t, m, 20)
		require.Equal(t, count(11, 30), got)

		say(t, b.Room(name), 31, 50)
		all, err := a.Room(name).History(within(t), at, 5)
		require.Equal(t, &fanout.GapError{Room: name, Missed: 20}, err)
		require.Len(t, all, 5)
		require.Equal(t, "31", string(all[0].Data))

		// Not even the functions are needed to be there.
		for _, n := range c.Primaries() {
			require.NoError(t, n.Do(within(t), "FUNCTION", "FLUSH").Error())
			require.NoError(t, n.Do(within(t), "SCRIPT", "FLUSH").Error())
		}
		say(t, a.Room(name), 51, 60)
		got, _ = hear(t, m, 30)
		require.Equal(t, count(31, 60), got)
		got, _ = hear(t, live, 50)
		require.Equal(t, count(11, 60), got)
		require.Zero(t, a.Stats().Missed)
	})
}

// The rights in the package documentation are enough, and the error of a user
// that may not keep a history says so.
func TestHistoryACLUsers(t *testing.T) {
	t.Parallel()
	c := redistest.NewCluster(t, redistest.Options{Primaries: 3})
	plain := []string{
		"resetchannels", "&fanout:*", "-@all",
		"+ssubscribe", "+sunsubscribe", "+spublish", "+role", "+cluster|slots", "+cluster|shards", "+hello", "+ping",
	}
	history := []string{
		"~fanout:*", "+fcall", "+function|load", "+info", "+time", "+cluster|myid", "+del", "+pexpire",
		"+hmget", "+hget", "+hset", "+hlen", "+hgetall", "+hdel", "+xadd", "+xrange", "+xrevrange", "+xtrim",
	}
	for _, n := range c.Nodes() {
		for user, rights := range map[string][]string{"plain": plain, "history": slices.Concat(plain, history)} {
			args := append([]string{"ACL", "SETUSER", user, "on", ">secret"}, rights...)
			require.NoError(t, n.Do(t.Context(), args...).Error())
		}
	}
	as := func(user string) rueidis.Client {
		return c.Client(t, func(o *rueidis.ClientOption) { o.Username, o.Password = user, "secret" })
	}
	h := keeping(t, as("history"), 10)
	say(t, h.Room("x"), 1, 200) // enough for trimming, too
	m := member(t, h)
	require.NoError(t, h.Room("x").Resume(within(t), m, fanout.Position{}))
	got, _ := hear(t, m, 10)
	require.Equal(t, count(191, 200), got)

	p := keeping(t, as("plain"), 10)
	err := p.Room("x").Publish(within(t), []byte("lost"))
	require.ErrorIs(t, err, fanout.ErrRefused)
	require.ErrorContains(t, err, "NOPERM")
	require.ErrorIs(t, p.Room("x").Join(within(t), member(t, p)), fanout.ErrRefused)
	require.ErrorContains(t, p.Health(within(t)), "NOPERM", "Health tells that histories are refused")
	require.NoError(t, p.Everyone().Publish(within(t), []byte("nobody else notices")))
}

// A server without memory keeps no more messages, says why, and returns those
// that it has.
func TestHistoryOfAServerWithoutMemory(t *testing.T) {
	t.Parallel()
	s := redistest.NewServer(t, redistest.Options{})
	h := keeping(t, s.Client(t), 1000)
	m := member(t, h)
	require.NoError(t, h.Room("x").Join(within(t), m))
	say(t, h.Room("x"), 1, 5)
	require.NoError(t, s.Do(within(t), "CONFIG", "SET", "maxmemory", "1").Error())
	err := publishUntilDeadline(t, h.Room("x"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, err, fanout.ErrUnsent)
	require.ErrorContains(t, err, "no memory for the history")
	other := member(t, h)
	require.NoError(t, h.Room("x").Resume(within(t), other, fanout.Position{}))
	got, _ := hear(t, other, 5)
	require.Equal(t, count(1, 5), got)
	require.NoError(t, s.Do(within(t), "CONFIG", "SET", "maxmemory", "0").Error())
	say(t, h.Room("x"), 6, 7)
	got, _ = hear(t, m, 7)
	require.Equal(t, count(1, 7), got)
}

// publishUntilDeadline publishes to a room while its server has no memory, and
// returns the error at the deadline. It begins again if the deadline came
// during an attempt, since such a message is not known to be unsent.
func publishUntilDeadline(t *testing.T, room *fanout.Room) (err error) {
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		err = room.Publish(ctx, []byte("lost"))
		cancel()
		if errors.Is(err, fanout.ErrUnsent) {
			break
		}
	}
	return err
}

// A room that is idle for as long as it keeps messages costs nothing but its
// note.
func TestHistoryExpires(t *testing.T) {
	t.Parallel()
	s := redistest.NewServer(t, redistest.Options{})
	a, err := newAdapter(s.Client(t))
	require.NoError(t, err)
	h, err := fanout.New(a, &fanout.Options{Room: func(string) fanout.RoomOptions {
		return fanout.RoomOptions{Retain: fanout.Retention{Messages: 100, Age: 4 * time.Second}}
	}})
	require.NoError(t, err)
	defer h.Close(within(t))
	say(t, h.Room("x"), 1, 5)
	all, err := h.Room("x").History(within(t), fanout.Position{}, 0)
	require.NoError(t, err)
	require.Len(t, all, 5)
	require.Eventually(t, func() bool {
		n, err := s.Do(within(t), "EXISTS", "fanout:h:{x}").AsInt64()
		return err == nil && n == 0
	}, 10*time.Second, 20*time.Millisecond)
	_, err = h.Room("x").History(within(t), all[1].Position, 0)
	require.Equal(t, &fanout.GapError{Room: "x", Missed: 3}, err, "the note is there still")
	ttl, err := s.Do(within(t), "TTL", "fanout:h:{x}:at").AsInt64()
	require.NoError(t, err)
	require.InDelta(t, 24*3600, ttl, 60)
}

// Frames that are long travel as they are, behind an announcement.
func TestHistoryOfLongMessages(t *testing.T) {
	onClusters(t, func(t *testing.T, c *redistest.Cluster) {
		h := keeping(t, c.Client(t), 50)
		room := h.Room("long " + t.Name())
		m := member(t, h)
		require.NoError(t, room.Join(within(t), m))
		inParallel(40, func(i int) {
			data := bytes.Repeat([]byte{byte(i)}, 1+i*i*40)
			if err := room.Publish(within(t), data); err != nil {
				t.Error(err)
			}
		})
		again := member(t, h)
		require.NoError(t, room.Resume(within(t), again, fanout.Position{}))
		for range 40 {
			live, err := m.Receive(within(t))
			require.NoError(t, err)
			kept, err := again.Receive(within(t))
			require.NoError(t, err)
			require.NotZero(t, live.Position)
			require.Equal(t, live, kept)
		}
	})
}

// A primary that was killed comes back as a replica and is made the primary
// again, while the client, which has forgotten it, is told by nobody.
func TestAPrimaryThatReturnsIsFound(t *testing.T) {
	t.Parallel()
	c := redistest.NewCluster(t, withReplicas)
	w := newWorld(t, c, 2, roomNames(6))
	n := c.Owner(slotOf(w.rooms[0]))
	redistest.Must(t, n.Kill(within(t)))
	redistest.Must(t, c.WaitHealthy(within(t)))
	w.resumes()
	redistest.Must(t, n.Start(within(t)))
	redistest.Must(t, c.WaitHealthy(within(t)))
	redistest.Must(t, c.Failover(within(t), n))
	w.two = true
	w.resumes()
	w.verdict()
}

// The commands in WIRE.md, by which other programs publish to rooms, work as
// they are written there.
func TestCommandsOfAStranger(t *testing.T) {
	onClusters(t, func(t *testing.T, c *redistest.Cluster) {
		h := keeping(t, c.Client(t), 200)
		node := c.Owner(redistest.Slot("{lobby}"))
		require.NoError(t, node.Do(within(t), "DEL", "fanout:h:{lobby}", "fanout:h:{lobby}:at").Error())
		m := member(t, h)
		require.NoError(t, h.Room("lobby").Join(within(t), m))
		say(t, h.Room("lobby"), 1, 1) // loads the functions
		hear(t, m, 1)
		digest := libraryDigest(t, node)

		spublish, fcall := wireCommand(t, "SPUBLISH "), wireCommand(t, "FCALL ")
		n, err := node.Do(within(t), spublish...).AsInt64()
		require.NoError(t, err)
		require.EqualValues(t, 1, n)
		msg, err := m.Receive(within(t))
		require.NoError(t, err)
		require.Equal(t, fanout.Message{Room: "lobby", Data: []byte("hello from redis-cli")}, msg)

		for i := range fcall {
			fcall[i] = strings.ReplaceAll(fcall[i], "<digest>", digest)
		}
		answer, err := node.Do(within(t), fcall...).ToArray()
		require.NoError(t, err)
		require.Len(t, answer, 3)
		msg, err = m.Receive(within(t))
		require.NoError(t, err)
		require.Equal(t, "hello", string(msg.Data))
		require.Empty(t, msg.Sender)
		require.EqualValues(t, 2, msg.Position.Offset)
		say(t, h.Room("lobby"), 3, 3)
		hear(t, m, 1)
		again := member(t, h)
		require.NoError(t, h.Room("lobby").Resume(within(t), again, fanout.Position{}))
		got, _ := hear(t, again, 3)
		require.Equal(t, []string{"1", "hello", "3"}, got)

		// What is wrong with a call is found before anything is written.
		const frame, messages, keep, age, publisher, stream, next, command, channel, checksum = 5, 6, 7, 8, 9, 10, 11, 12, 13, 14
		long := strings.Repeat("x", 3000)
		for name, changes := range map[string]map[int]string{
			"no messages":                   {messages: "0"},
			"half a message":                {messages: "1.5"},
			"messages that are no number":   {messages: "x"},
			"too many messages":             {messages: "9007199254740993"},
			"a negative number of messages": {messages: "-1"},
			"messages in hexadecimal":       {messages: "0x10"},
			"none are kept":                 {keep: "0"},
			"kept for no time":              {age: "0"},
			"kept for ever":                 {age: "1e300"},
			"not for a number":              {age: "nan"},
			"a publisher of one letter":     {publisher: "s", stream: "1", next: "2"},
			"a publisher without a stream":  {publisher: "me", stream: "", next: "2"},
			"a publisher without a number":  {publisher: "me", stream: "1", next: "x"},
			"a number beyond 2^53":          {publisher: "me", stream: "1", next: "9223372036854775808"},
			"another command":               {command: "DEL"},
			"a channel of another slot":     {channel: "fanout:r:{attic}"},
			"no channel":                    {channel: ""},
			"a long frame without checksum": {frame: long},
			"a checksum of another form":    {frame: long, checksum: "0x123456"},
		} {
			call := slices.Clone(fcall)
			for i, value := range changes {
				call[i] = value
			}
			before, err := node.Do(within(t), "DUMP", "fanout:h:{lobby}").ToString()
			require.NoError(t, err)
			require.Error(t, node.Do(within(t), call...).Error(), name)
			after, err := node.Do(within(t), "DUMP", "fanout:h:{lobby}").ToString()
			require.NoError(t, err)
			require.Equal(t, before, after, name)
		}
		call := slices.Clone(fcall)
		call[frame], call[checksum] = long, wire.Checksum([]byte(long))
		require.NoError(t, node.Do(within(t), call...).Error())
		msg, err = m.Receive(within(t))
		require.NoError(t, err)
		require.Equal(t, long, string(msg.Data))
		require.EqualValues(t, 4, msg.Position.Offset)
	})
}

// libraryDigest returns what the names of the functions at a node end with.
func libraryDigest(t *testing.T, n *redistest.Node) string {
	t.Helper()
	functions, err := n.Do(within(t), "FUNCTION", "LIST", "LIBRARYNAME", "fanout_*").ToArray()
	require.NoError(t, err)
	require.NotEmpty(t, functions)
	library, err := functions[len(functions)-1].AsMap()
	require.NoError(t, err)
	name := library["library_name"]
	text, err := name.ToString()
	require.NoError(t, err)
	return strings.TrimPrefix(text, "fanout_")
}

// wireCommand returns the words of the command in WIRE.md that begins so.
func wireCommand(t *testing.T, begin string) (words []string) {
	t.Helper()
	text, err := os.ReadFile("../WIRE.md")
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		line, indented := strings.CutPrefix(strings.TrimRight(line, "\n"), "    ")
		if !indented || !strings.HasPrefix(line, begin) {
			continue
		}
		line, _, _ = strings.Cut(line, " #")
		for i, part := range strings.Split(line, "'") {
			if i%2 == 1 {
				words = append(words, part)
			} else {
				words = append(words, strings.Fields(part)...)
			}
		}
		return words
	}
	t.Fatalf("WIRE.md has no command %q", begin)
	return nil
}

// One primary is silent, and many members resume there: those whose rooms live
// elsewhere do not wait for it.
func TestASilentPrimaryHoldsUpNoHistoriesElsewhere(t *testing.T) {
	c := cluster(t)
	h, other := keeping(t, c.Client(t), 1000), keeping(t, c.Client(t), 1000)
	victim := c.Primaries()[0]
	var there, elsewhere []string
	for n := 0; len(there) < 400 || len(elsewhere) < 50; n++ {
		room := fmt.Sprint(t.Name(), n)
		if c.Owner(slotOf(room)) == victim {
			there = append(there, room)
		} else {
			elsewhere = append(elsewhere, room)
		}
	}
	there, elsewhere = there[:400], elsewhere[:50]
	all := slices.Concat(there, elsewhere)
	inParallel(len(all), func(i int) { // they are subscribed, and have something to read
		if err := h.Room(all[i]).Join(within(t), member(t, h)); err != nil {
			t.Error(err)
		}
		for n := range 3 {
			if err := other.Room(all[i]).Publish(within(t), fmt.Append(nil, n)); err != nil {
				t.Error(err)
			}
		}
	})
	fresh := keeping(t, c.Client(t), 1000) // which has none of it
	inParallel(len(all), func(i int) {
		if err := fresh.Room(all[i]).Join(within(t), member(t, fresh)); err != nil {
			t.Error(err)
		}
	})
	require.NoError(t, victim.Pause(within(t)))
	defer func() { require.NoError(t, victim.Unpause(within(t))) }()
	ctx, giveUp := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for _, room := range there {
		m := member(t, fresh)
		waiting.Go(func() { _ = fresh.Room(room).Resume(ctx, m, fanout.Position{}) })
	}
	require.Eventually(t, func() bool { return fresh.Stats().Reads >= uint64(len(all)+100) }, 5*time.Second, time.Millisecond)
	var slowest time.Duration
	for _, room := range elsewhere {
		begun := time.Now()
		m := member(t, fresh)
		require.NoError(t, fresh.Room(room).Resume(within(t), m, fanout.Position{}))
		slowest = max(slowest, time.Since(begun))
		texts, _ := hear(t, m, 3)
		require.Equal(t, count(0, 2), texts)
	}
	t.Log("slowest", slowest)
	require.Less(t, slowest, 500*time.Millisecond)
	giveUp()
	waiting.Wait()
}
