package sharded_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/rediscontract"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// A world is some hubs on a cluster, with a member each that is in all rooms
// and writes down what it gets, and publishers that go on through every fault.
// One more hub has no members: it only publishes.
type world struct {
	t     *testing.T
	hubs  []*fanout.Hub
	nets  []*redistest.Net // of each hub
	rooms []string
	two   bool // differences in order are logged, and no failure; see faults

	stop       chan struct{} // closed when publishers are to end
	stopping   sync.Once
	publishers sync.WaitGroup
	hangUp     context.CancelFunc // ends the readers
	readers    sync.WaitGroup

	mu       sync.Mutex // guards all below
	counting bool       // hubs have heard each other
	said     map[string]*tally
	heard    []map[string]*record // by hub, then by room
}

// A tally counts the outcomes of publishing to a room.
type tally struct{ accepted, unsent, unclear int }

// A record is what a member got of a room.
type record struct {
	messages []string
	missed   int
	gaps     int
	unknown  int // gaps of unknown size
	last     time.Time
	silence  time.Duration // the longest between two messages
}

// firstWord and lastWord begin what hubs say before, and after, everything
// else.
const firstWord, lastWord = "first", "last"

// pace is the pause of a publisher between two rounds through all rooms.
var pace = time.Duration(redistest.Rounds(10, 5)) * time.Millisecond

// servers are a redistest.Cluster, Server or Sentinel.
type servers interface {
	Client(testing.TB, ...func(*rueidis.ClientOption)) rueidis.Client
}

func newWorld(t *testing.T, c servers, hubs int, rooms []string) *world {
	t.Helper()
	return newWorldOf(t, c, hubs, rooms, newAdapter)
}

// newWorldOf is newWorld with another adapter.
func newWorldOf(t *testing.T, c servers, hubs int, rooms []string, newAdapter rediscontract.NewAdapter) *world {
	t.Helper()
	w := &world{t: t, rooms: rooms, stop: make(chan struct{}), said: make(map[string]*tally)}
	for _, room := range rooms {
		w.said[room] = new(tally)
	}
	for i := range hubs + 1 {
		w.nets = append(w.nets, new(redistest.Net))
		h := newHubOf(t, c.Client(t, w.nets[i].Option()), newAdapter)
		t.Cleanup(w.nets[i].HealAll) // before the hub closes
		w.hubs = append(w.hubs, h)
		if i == hubs {
			break
		}
		w.heard = append(w.heard, make(map[string]*record))
		for _, room := range rooms {
			w.heard[i][room] = new(record)
		}
	}
	ctx, hangUp := context.WithCancel(context.Background())
	t.Cleanup(hangUp)
	w.hangUp = hangUp
	for i, h := range w.hubs[:hubs] {
		m, err := h.Connect(nil)
		require.NoError(t, err)
		inParallel(len(rooms), func(r int) {
			if err := h.Room(rooms[r]).Join(within(t), m); err != nil {
				t.Error(err)
			}
		})
		w.readers.Go(func() { w.read(ctx, i, m) })
	}
	// What a hub says before it was heard once has no number that tells how much
	// of it is missing.
	w.exchange(firstWord)
	w.all(func(r *record) bool {
		*r = record{}
		w.counting = true
		return true
	})
	for _, room := range rooms {
		w.said[room] = new(tally)
	}
	t.Cleanup(w.hush) // also if the test ends before its verdict: others need the processor
	for i := range w.hubs {
		w.publishers.Go(func() { w.publish(i) })
	}
	w.until("everybody has heard everybody", func() bool {
		return w.all(func(r *record) bool { return len(r.messages) > 5*hubs })
	})
	return w
}

// kept begins the names of rooms that have a history.
const kept = "kept"

func newHub(t testing.TB, client rueidis.Client) *fanout.Hub {
	t.Helper()
	return newHubOf(t, client, newAdapter)
}

// newHubOf is newHub with another adapter.
func newHubOf(t testing.TB, client rueidis.Client, newAdapter rediscontract.NewAdapter) *fanout.Hub {
	t.Helper()
	a, err := newAdapter(client)
	require.NoError(t, err)
	h, err := fanout.New(a, &fanout.Options{
		Window: fanout.Window{Messages: 1 << 20, Bytes: 1 << 30}, PublishTimeout: 20 * time.Second,
		Room: func(room string) (o fanout.RoomOptions) {
			if strings.HasPrefix(room, kept) {
				o.Retain = fanout.Retention{Messages: 100_000, Age: time.Hour}
			}
			return o
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := h.Close(within(t)); err != nil {
			t.Error(err)
		}
	})
	return h
}

// publish says numbers in all rooms until it is stopped.
func (w *world) publish(hub int) {
	for n := 0; ; n++ {
		select {
		case <-w.stop:
			return
		case <-time.After(pace):
		}
		inParallel(len(w.rooms), func(r int) { w.say(hub, w.rooms[r], fmt.Sprintf("%d.%d", hub, n)) })
	}
}

func (w *world) say(hub int, room, text string) bool {
	err := w.hubs[hub].Room(room).Publish(context.Background(), []byte(text))
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.said[room]
	switch {
	case err == nil:
		t.accepted++
	case errors.Is(err, fanout.ErrUnsent):
		t.unsent++
	default:
		t.unclear++
	}
	return err == nil
}

// read writes down what a member gets until ctx is done.
func (w *world) read(ctx context.Context, hub int, m *fanout.Member) {
	for msg, err := range m.Messages(ctx) {
		gap := new(fanout.GapError)
		switch {
		case err == nil:
			w.got(w.heard[hub], &msg)
		case errors.As(err, &gap):
			w.gap(w.heard[hub], gap)
		case ctx.Err() == nil:
			w.t.Errorf("hub %d: %v", hub, err)
			return
		}
	}
}

func (w *world) got(rooms map[string]*record, msg *fanout.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if strings.Contains(string(msg.Data), firstWord) && w.counting {
		return // said again, since it was unclear whether it was
	}
	r := rooms[msg.Room]
	r.messages = append(r.messages, string(msg.Data))
	now := time.Now()
	if !r.last.IsZero() {
		r.silence = max(r.silence, now.Sub(r.last))
	}
	r.last = now
}

func (w *world) gap(rooms map[string]*record, gap *fanout.GapError) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := rooms[gap.Room]
	if r == nil {
		return // a gap of everyone's channel
	}
	r.gaps++
	r.missed += gap.Missed
	if gap.Unknown {
		r.unknown++
	}
}

func (w *world) all(f func(*record) bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, rooms := range w.heard {
		for _, r := range rooms {
			if !f(r) {
				return false
			}
		}
	}
	return true
}

// resumes waits until everything works again for everybody.
func (w *world) resumes() {
	w.t.Helper()
	w.mu.Lock()
	from := make(map[*record]int)
	for _, rooms := range w.heard {
		for _, r := range rooms {
			from[r] = len(r.messages)
		}
	}
	w.mu.Unlock()
	w.until("everybody hears in every room again", func() bool {
		return w.all(func(r *record) bool {
			return len(r.messages) > from[r]+3*len(w.hubs) && r.heardAll(from[r], len(w.hubs))
		})
	})
	w.until("all links are healthy", func() bool {
		return !slices.ContainsFunc(w.hubs, func(h *fanout.Hub) bool { return h.Health(within(w.t)) != nil })
	})
}

// heardAll reports whether each hub was heard since a message.
func (r *record) heardAll(since, hubs int) bool {
	heard := make(map[string]bool)
	for _, m := range r.messages[since:] {
		if from, _, ok := strings.Cut(m, "."); ok { // others are a test's own
			heard[from] = true
		}
	}
	return len(heard) == hubs
}

func (w *world) until(what string, f func() bool) {
	w.t.Helper()
	require.Eventually(w.t, f, time.Minute, 5*time.Millisecond, what)
}

// hush ends the publishing.
func (w *world) hush() {
	w.stopping.Do(func() { close(w.stop) })
	w.publishers.Wait()
}

// verdict stops everything and checks the guarantees against what was written
// down. It returns the most that a member missed of a room.
func (w *world) verdict() (worst int) {
	w.t.Helper()
	w.hush()
	w.exchange(lastWord)
	w.hangUp()
	w.readers.Wait()
	total := tally{}
	var received, missed, unknown int
	var silence time.Duration
	for _, room := range w.rooms {
		t := w.said[room]
		total.accepted += t.accepted
		total.unsent += t.unsent
		total.unclear += t.unclear
		for hub, rooms := range w.heard {
			r := rooms[room]
			w.check(hub, room, r, t)
			received += len(r.messages)
			missed += r.missed
			unknown += r.unknown
			worst = max(worst, r.missed)
			silence = max(silence, r.silence)
		}
		w.checkOrder(room)
	}
	w.t.Logf("published %d (unsent %d, unclear %d); for %d hubs: received %d, reported missed %d, at most %d of a room, gaps of unknown size %d; longest silence of a room %v",
		total.accepted, total.unsent, total.unclear, len(w.heard), received, missed, worst, unknown, silence.Round(time.Millisecond))
	return worst
}

// exchange has each hub say a word in all rooms, until every member has the
// words of all hubs of one round. A round in which something was lost ends with
// a gap at the member that lost it: no loss stays unreported because nothing
// follows it.
func (w *world) exchange(word string) {
	w.t.Helper()
	for round := range 20 {
		if w.round(fmt.Sprint(word, round)) {
			return
		}
	}
	require.Fail(w.t, "gaps go on")
}

// round is a round of exchange. It reports whether every member has all words.
func (w *world) round(word string) (complete bool) {
	w.t.Helper()
	gaps := make(map[*record]int)
	from := make(map[*record]int)
	w.all(func(r *record) bool {
		gaps[r], from[r] = r.gaps, len(r.messages)
		return true
	})
	var words []string
	for hub := range w.hubs {
		words = append(words, fmt.Sprint(hub, ".", word))
	}
	inParallel(len(w.hubs)*len(w.rooms), func(i int) {
		hub := i / len(w.rooms)
		for !w.say(hub, w.rooms[i%len(w.rooms)], words[hub]) {
			if w.t.Failed() {
				return
			}
		}
	})
	w.until("everybody has heard "+word+", or of a gap", func() bool {
		complete = true
		return w.all(func(r *record) bool {
			heard := len(common(words, r.messages[from[r]:])) == len(words)
			complete = complete && heard
			return heard || r.gaps > gaps[r]
		})
	})
	return complete
}

// check holds one member's record of a room against what was said there.
func (w *world) check(hub int, room string, r *record, t *tally) {
	w.t.Helper()
	seen := make(map[string]bool)
	for _, m := range r.messages {
		if seen[m] && !strings.Contains(m, lastWord) { // which is said again if it is unclear whether it was
			w.t.Errorf("hub %d, room %s: %s came twice", hub, room, m)
		}
		seen[m] = true
	}
	// What is unclear was received, or counted as missed, or never sent.
	if n := len(r.messages) + r.missed; n < t.accepted || n > t.accepted+t.unclear {
		w.t.Errorf("hub %d, room %s: received %d and missed %d, published %d and perhaps %d", hub, room, len(r.messages), r.missed, t.accepted, t.unclear)
	}
}

// checkOrder sees to it that what two members got of a room, both of them, came
// in the same order.
func (w *world) checkOrder(room string) {
	w.t.Helper()
	first := w.heard[0][room].messages
	for hub := 1; hub < len(w.heard); hub++ {
		other := w.heard[hub][room].messages
		a, b := common(first, other), common(other, first)
		if !slices.Equal(a, b) {
			for i := range a {
				if i >= len(b) || a[i] != b[i] {
					complain := w.t.Errorf
					if w.two {
						complain = w.t.Logf
					}
					complain("room %s: hub 0 got %v where hub %d got %v", room, a[i:min(i+5, len(a))], hub, b[i:min(i+5, len(b))])
					break
				}
			}
		}
	}
}

// common returns those of a that are in b, in the order of a.
func common(a, b []string) (list []string) {
	in := make(map[string]bool, len(b))
	for _, m := range b {
		in[m] = true
	}
	for _, m := range a {
		if in[m] {
			list = append(list, m)
		}
	}
	return list
}

func roomNames(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprint("room", i))
	}
	return names
}

func inParallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

// within returns a context that is long enough for what should happen.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
