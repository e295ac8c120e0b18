package partition_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/adapter/partition"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/stretchr/testify/require"
)

// TestSimulation has hubs that talk while partitions come and go, in whatever
// order the hubs learn of it, and accounts for each message.
func TestSimulation(t *testing.T) {
	for seed := range uint64(redistest.Rounds(8, 40)) {
		t.Run(fmt.Sprint("without faults, seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newSimulation(t, seed, false).run(false) })
		})
		t.Run(fmt.Sprint("with faults, seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newSimulation(t, seed, true).run(true) })
		})
	}
}

// A simulation is some hubs on a world, with a member for each room on each.
type simulation struct {
	t       *testing.T
	random  *dice
	world   *world
	hubs    []*fanout.Hub
	set     []string // current, or about to be
	rooms   []string
	members []*listener
	saidMu  sync.Mutex
	said    map[string][]string // by room. Guarded by saidMu
	changes sync.WaitGroup
}

// dice may be thrown by several goroutines.
type dice struct {
	mu     sync.Mutex
	source *rand.Rand
}

func (d *dice) IntN(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.source.IntN(n)
}

// A listener is a member of one room, and all that it has received: texts, and
// gaps.
type listener struct {
	room   string
	member *fanout.Member
	got    []string
	gaps   int
	missed int
}

const gap = "gap"

func newSimulation(t *testing.T, seed uint64, faults bool) *simulation {
	s := &simulation{
		t: t, random: &dice{source: rand.New(rand.NewPCG(seed, 7))}, world: newWorld(),
		set: []string{"p0", "p1"}, said: make(map[string][]string),
	}
	s.world.mute = seed%3 == 2
	s.world.prepare = func(bus *memory.Bus) { bus.Intercept(s.fate(faults)) }
	for i := range 6 {
		s.rooms = append(s.rooms, fmt.Sprintf("live %d", i), fmt.Sprintf("kept %d", i))
	}
	o := &fanout.Options{
		Window: fanout.Window{Messages: 100_000}, Logger: slog.New(slog.DiscardHandler),
		Room: func(name string) fanout.RoomOptions {
			if strings.HasPrefix(name, "kept") {
				return fanout.RoomOptions{Retain: fanout.Retention{Messages: 100_000, Age: time.Hour}}
			}
			return fanout.RoomOptions{}
		},
	}
	for range 3 {
		h, err := fanout.New(s.world.add(t, &partition.Options{Patience: 3 * time.Second, Logger: o.Logger}, s.set...), o)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, h.Close(context.Background())) })
		s.hubs = append(s.hubs, h)
		for _, room := range s.rooms {
			m, err := h.Connect(nil)
			require.NoError(t, err)
			require.NoError(t, h.Room(room).Join(t.Context(), m))
			s.members = append(s.members, &listener{room: room, member: m})
		}
	}
	return s
}

func (s *simulation) run(faults bool) {
	for range 60 {
		switch d := s.random.IntN(10); {
		case d == 0:
			s.change()
		case d == 1 && faults:
			s.link().CutSubscriber()
		case d == 2 && faults:
			s.link().Heal()
		case d < 5:
			time.Sleep(time.Duration(s.random.IntN(60)) * time.Millisecond)
		default:
			s.publish(1 + s.random.IntN(10))
		}
	}
	s.heal()
	s.changes.Wait()
	time.Sleep(10 * time.Second)
	for _, room := range s.rooms { // what is missing shows by what comes after it
		for hub := range s.hubs {
			s.say(hub, room)
		}
	}
	time.Sleep(10 * time.Second)
	for _, l := range s.members {
		l.read(s.t)
		s.account(l, faults)
	}
	s.histories()
}

func (s *simulation) heal() {
	for i := range s.hubs {
		s.world.each(i, (*memory.Adapter).Heal)
	}
}

func (s *simulation) link() *memory.Adapter {
	hub := s.random.IntN(len(s.hubs))
	names := make([]string, 0, 5)
	for name := range s.world.links[hub] {
		names = append(names, name)
	}
	slices.Sort(names)
	return s.world.links[hub][names[s.random.IntN(len(names))]]
}

// change has all hubs told of another set, each when it likes. Partitions that
// are not in it are leaving, so their histories stay readable.
func (s *simulation) change() {
	if s.random.IntN(2) == 0 {
		s.heal()
	}
	done := make(chan struct{})
	go func() {
		s.changes.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(time.Minute): // it waits for a link
		s.heal()
		<-done
	}
	all := []string{"p0", "p1", "p2", "p3"}
	for i := range all {
		j := s.random.IntN(i + 1)
		all[i], all[j] = all[j], all[i]
	}
	s.set = all[:1+s.random.IntN(len(all))]
	for i, a := range s.world.adapters {
		parts := s.world.parts(i, s.set...)
		for name := range s.world.links[i] {
			if !slices.Contains(s.set, name) {
				parts = append(parts, partition.Partition{Name: name, Leaving: true})
			}
		}
		delay := time.Duration(s.random.IntN(300)) * time.Millisecond
		s.changes.Go(func() {
			time.Sleep(delay)
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
			defer cancel()
			require.NoError(s.t, a.Change(ctx, parts))
		})
	}
}

// fate has publishes take some time and, with faults, answers get lost.
func (s *simulation) fate(faults bool) memory.Interceptor {
	return func(context.Context, memory.Frame) (f memory.Fate) {
		if s.random.IntN(4) == 0 {
			time.Sleep(time.Duration(s.random.IntN(50)) * time.Millisecond)
		}
		if s.random.IntN(10) == 0 {
			f.Delay = time.Duration(s.random.IntN(30)) * time.Millisecond
		}
		if faults && s.random.IntN(10) == 0 {
			f.Err = errors.New("lost on the way back")
		}
		return f
	}
}

// publish has all hubs publish to some rooms, at the same time.
func (s *simulation) publish(n int) {
	var all sync.WaitGroup
	for hub := range s.hubs {
		all.Go(func() {
			for range n {
				s.say(hub, s.rooms[s.random.IntN(len(s.rooms))])
			}
		})
	}
	all.Wait()
}

func (s *simulation) say(hub int, room string) {
	s.saidMu.Lock()
	text := fmt.Sprintf("%d %d", hub, len(s.said[room]))
	s.said[room] = append(s.said[room], text)
	s.saidMu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	published := make(chan error, 1)
	go func() { published <- s.hubs[hub].Room(room).Publish(ctx, []byte(text)) }()
	select {
	case err := <-published:
		require.NoError(s.t, err)
	case <-time.After(time.Second): // it is held because a link is cut or a hub was not told yet
		s.heal()
		require.NoError(s.t, <-published)
	}
}

func (l *listener) read(t *testing.T) {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		m, err := l.member.Receive(ctx)
		cancel()
		var missing *fanout.GapError
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return
		case errors.As(err, &missing):
			if missing.Room == l.room {
				l.got = append(l.got, gap)
				l.gaps++
				l.missed += missing.Missed
			}
		default:
			require.NoError(t, err)
			l.got = append(l.got, string(m.Data))
		}
	}
}

// account checks that whatever a member did not receive lies where it was told
// of a gap.
func (s *simulation) account(l *listener, faults bool) {
	if !faults || strings.HasPrefix(l.room, "kept") {
		require.Zero(s.t, l.gaps, "gaps in %s", l.room)
	}
	lost := 0
	for hub := range s.hubs {
		prefix := fmt.Sprint(hub, " ")
		var want []string
		for _, text := range s.said[l.room] {
			if strings.HasPrefix(text, prefix) {
				want = append(want, text)
			}
		}
		told := false
		for _, got := range l.got {
			switch {
			case got == gap:
				told = true
			case strings.HasPrefix(got, prefix):
				at := slices.Index(want, got)
				require.GreaterOrEqual(s.t, at, 0, "%q came twice, or out of order, in %s: %q", got, l.room, l.got)
				require.True(s.t, at == 0 || told, "%d messages before %q are missing in %s, silently: %q", at, got, l.room, l.got)
				lost += at
				want, told = want[at+1:], false
			}
		}
		require.Empty(s.t, want, "the last messages of hub %d in %s", hub, l.room)
	}
	require.LessOrEqual(s.t, l.missed, lost, "messages that are counted as missing in %s", l.room)
}

// histories checks that each hub reads all that was ever published.
func (s *simulation) histories() {
	for _, room := range s.rooms {
		if !strings.HasPrefix(room, "kept") {
			continue
		}
		for _, h := range s.hubs {
			all, err := h.Room(room).History(s.t.Context(), fanout.Position{}, 0)
			require.NoError(s.t, err)
			var texts []string
			for i, m := range all {
				texts = append(texts, string(m.Data))
				if i > 0 {
					require.True(s.t, all[i-1].Position.Before(m.Position))
				}
			}
			require.ElementsMatch(s.t, s.said[room], texts, room)
			if at := len(all) / 2; at > 0 { // a position from before
				rest, err := h.Room(room).History(s.t.Context(), all[at-1].Position, 0)
				require.NoError(s.t, err)
				require.Len(s.t, rest, len(all)-at)
			}
		}
	}
}
