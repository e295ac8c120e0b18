package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rounds returns how often a test repeats something: few times, or many with
// FANOUT_TEST_ALL=1, as in make test-all.
func rounds(few, many int) int {
	if os.Getenv("FANOUT_TEST_ALL") == "1" {
		return many
	}
	return few
}

// newHub returns a hub that is closed at the end of the test. A nil bus is no
// adapter.
func newHub(t testing.TB, bus *memory.Bus, o *fanout.Options) *fanout.Hub {
	t.Helper()
	var a fanout.Adapter
	if bus != nil {
		a = bus.NewAdapter()
	}
	return newHubOn(t, a, o)
}

func newHubOn(t testing.TB, a fanout.Adapter, o *fanout.Options) *fanout.Hub {
	t.Helper()
	h, err := fanout.New(a, o)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, h.Close(ctx))
	})
	return h
}

func connect(t testing.TB, h *fanout.Hub, rooms ...string) *fanout.Member {
	t.Helper()
	m, err := h.Connect(nil)
	require.NoError(t, err)
	for _, room := range rooms {
		require.NoError(t, h.Room(room).Join(within(t), m))
	}
	return m
}

// within returns a context that is long enough for what should happen.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// receive returns the next n messages as strings; gaps as "gap 3", "gap 0+".
// Gaps of direct messages and those to everyone are passed over.
func receive(t testing.TB, m *fanout.Member, n int) []string {
	t.Helper()
	got := make([]string, 0, n)
	ctx := within(t)
	for len(got) < n {
		msg, err := m.Receive(ctx)
		if gap := new(fanout.GapError); errors.As(err, &gap) && gap.Room == "" {
			continue
		}
		got = append(got, show(t, msg, err))
	}
	return got
}

func show(t testing.TB, msg fanout.Message, err error) string {
	t.Helper()
	var gap *fanout.GapError
	if errors.As(err, &gap) {
		s := fmt.Sprintf("gap %d", gap.Missed)
		if gap.Unknown {
			s += "+"
		}
		return s
	}
	require.NoError(t, err)
	return string(msg.Data)
}

// inRooms has frames of rooms meet a fate, and lets those through that hubs
// send each other.
func inRooms(fate func(context.Context, memory.Frame) memory.Fate) func(context.Context, memory.Frame) memory.Fate {
	return func(ctx context.Context, f memory.Frame) memory.Fate {
		if !strings.HasPrefix(f.Channel, "fanout:r:") {
			return memory.Fate{}
		}
		return fate(ctx, f)
	}
}

// nothing checks that nothing is there for m, by way of a direct message, which
// comes after it if anything does. It is for tests without a backend between.
func nothing(t testing.TB, h *fanout.Hub, m *fanout.Member) {
	t.Helper()
	require.NoError(t, h.To(m.ID()).Local().Publish(within(t), []byte("marker")))
	require.Equal(t, []string{"marker"}, receive(t, m, 1))
}

// publish sends numbers from first to last.
func publish(t testing.TB, r *fanout.Room, first, last int) {
	t.Helper()
	for n := first; n <= last; n++ {
		require.NoError(t, r.Publish(within(t), fmt.Append(nil, n)))
	}
}

func numbers(first, last int) (list []string) {
	for n := first; n <= last; n++ {
		list = append(list, fmt.Sprint(n))
	}
	return list
}

// inParallel runs f n times at once and waits.
func inParallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}
