package rediscontract

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/hubstest"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// A hubProcess is a process that is a hub with members.
type hubProcess struct {
	Prefix  string
	Servers []string          // the addresses that they announce
	Addrs   map[string]string // where to dial them
	Single  bool              // not a cluster
}

const (
	processVariable = "FANOUT_TEST_HUB"
	processMembers  = 1000 // of a hubProcess
	processRoom     = "a room"
)

// processOptions are those of the hubs of RunProcesses, which list all members.
func processOptions(prefix string) *fanout.Options {
	return &fanout.Options{Prefix: prefix, PublishTimeout: 20 * time.Second, Room: func(string) fanout.RoomOptions {
		return fanout.RoomOptions{Presence: true, PresenceList: 2 * processMembers}
	}}
}

// HubProcess makes the process a hub and does not return, if [RunProcesses] has
// started it. TestMain calls it first.
func HubProcess(newAdapter NewAdapter) {
	variable := os.Getenv(processVariable)
	if variable == "" {
		return
	}
	p := new(hubProcess)
	err := json.Unmarshal([]byte(variable), p)
	if err == nil {
		err = p.run(newAdapter)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run is a hub until the input ends. It writes the hub's ID when all members
// have joined. Every tenth of them is that of a user.
func (p *hubProcess) run(newAdapter NewAdapter) error {
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: p.Servers, DisableCache: true, ForceSingleClient: p.Single,
		DialCtxFn: func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", p.Addrs[addr])
		},
	})
	if err != nil {
		return err
	}
	a, err := newAdapter(client)
	if err != nil {
		return err
	}
	h, err := fanout.New(a, processOptions(p.Prefix))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for i := range processMembers {
		o := new(fanout.MemberOptions)
		if i%10 == 0 {
			o.User = fmt.Sprint("user ", i)
		}
		m, err := h.Connect(o)
		if err != nil {
			return err
		}
		if err := h.Room(processRoom).Join(ctx, m); err != nil {
			return err
		}
	}
	fmt.Println(h.ID())
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// processServers are a redistest.Cluster or a redistest.Server.
type processServers interface {
	servers
	HostAddrs(context.Context) (map[string]string, error)
}

// The times that [fanout.Hub.Hubs] promises for backends that count receivers,
// and for those that do not.
const (
	GoneWithin          = 4 * time.Second
	GoneWithinUncounted = 8 * time.Second
)

// RunProcesses tests what two hubs notice of a third one, which is a process
// with 1,000 members. It is paused for a second, which they must not notice,
// and then killed, which both must notice within a time. N tries have hubs of
// their own each, and run in batches. It logs how long it took.
func RunProcesses(t *testing.T, n int, s processServers, newAdapter NewAdapter, goneWithin time.Duration) {
	tries := make([]*try, n)
	for i := range tries {
		tries[i] = &try{prefix: fmt.Sprint("try", i), within: goneWithin}
	}
	for batch := range slices.Chunk(tries, 5) {
		for _, y := range batch {
			y.start(t, s, newAdapter)
		}
		var running sync.WaitGroup
		for _, y := range batch {
			running.Go(func() {
				if err := y.run(); err != nil {
					t.Errorf("%s: %v", y.prefix, err)
				}
			})
		}
		running.Wait()
		for _, y := range batch {
			for _, h := range y.hubs {
				require.NoError(t, h.Close(context.Background()))
			}
		}
	}
	report(t, tries)
}

// A try is what one hubProcess goes through.
type try struct {
	prefix  string
	within  time.Duration // it is to be gone
	hubs    [2]*fanout.Hub
	lists   [2]*hubstest.List
	process *redistest.Self
	victim  string // the ID of its hub

	mu   sync.Mutex
	gone map[string][]time.Duration // after it was killed, by what tells it
}

// start starts the process, and two hubs with a member each.
func (y *try) start(t *testing.T, s processServers, newAdapter NewAdapter) {
	addrs, err := s.HostAddrs(t.Context())
	require.NoError(t, err)
	o := s.ClientOption()
	text, err := json.Marshal(&hubProcess{Prefix: y.prefix, Servers: o.InitAddress, Addrs: addrs, Single: o.ForceSingleClient})
	require.NoError(t, err)
	y.process, err = redistest.RunSelf(t, processVariable+"="+string(text))
	require.NoError(t, err)
	y.gone = make(map[string][]time.Duration)
	for i := range y.hubs {
		a, err := newAdapter(s.Client(t))
		require.NoError(t, err)
		y.hubs[i], err = fanout.New(a, processOptions(y.prefix))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, y.hubs[i].Close(context.Background())) })
		m, err := y.hubs[i].Connect(nil)
		require.NoError(t, err)
		require.NoError(t, y.hubs[i].Room(processRoom).Join(t.Context(), m))
		y.lists[i] = hubstest.Watch(t, m)
	}
}

func (y *try) run() error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	id, err := y.process.Line(ctx)
	if err != nil {
		return err
	}
	y.victim = id
	if err := y.both(func(i int) error { return y.until(ctx, func() error { return y.agree(ctx, i, true) }) }); err != nil {
		return fmt.Errorf("at the beginning: %w", err)
	}
	if err := y.pause(ctx); err != nil {
		return fmt.Errorf("paused: %w", err)
	}
	if err := y.kill(ctx); err != nil {
		return fmt.Errorf("killed: %w", err)
	}
	return nil
}

// both calls f for both hubs at the same time.
func (y *try) both(f func(i int) error) error {
	errs := make([]error, len(y.hubs))
	var running sync.WaitGroup
	for i := range y.hubs {
		running.Go(func() { errs[i] = f(i) })
	}
	running.Wait()
	return errors.Join(errs...)
}

// until waits until there is no error.
func (*try) until(ctx context.Context, cond func() error) error {
	for {
		err := cond()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// A way is one of the ways in which a hub shows members of the room, or hubs.
type way struct {
	name   string
	with   int // of the process
	others int
	count  func(ctx context.Context, y *try, i int) (int, error)
}

var ways = []way{
	{"Count", processMembers, 2, func(ctx context.Context, y *try, i int) (int, error) {
		return y.hubs[i].In(processRoom).Count(ctx)
	}},
	{"Members", processMembers, 2, func(ctx context.Context, y *try, i int) (int, error) {
		return length(y.hubs[i].In(processRoom).Members(ctx))
	}},
	{"Hubs", 1, 2, func(ctx context.Context, y *try, i int) (int, error) { return length(y.hubs[i].Hubs(ctx)) }},
	{"Stats.Hubs", 1, 2, func(_ context.Context, y *try, i int) (int, error) { return y.hubs[i].Stats().Hubs, nil }},
	{"presence", processMembers, 2, func(_ context.Context, y *try, i int) (int, error) {
		return y.lists[i].Len(), nil
	}},
}

func length[T any](list iter.Seq2[T, error]) (n int, err error) {
	for _, err := range list {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// check returns an error if a hub does not see what is there: with the process,
// or without it.
func (w *way) check(ctx context.Context, y *try, i int, with bool) error {
	want := w.others
	if with {
		want += w.with
	}
	n, err := w.count(ctx, y, i)
	switch {
	case err != nil:
		return fmt.Errorf("%s of hub %d: %w", w.name, i, err)
	case n != want:
		return fmt.Errorf("%s of hub %d: %d, and %d are there", w.name, i, n, want)
	}
	return nil
}

// agree returns an error if, in one of the ways, a hub does not see what is
// there.
func (y *try) agree(ctx context.Context, i int, with bool) error {
	for _, w := range ways {
		if err := w.check(ctx, y, i, with); err != nil {
			return err
		}
	}
	return nil
}

// pause pauses the process for a second. Nothing may change, then and for a
// while after.
func (y *try) pause(ctx context.Context) error {
	before := [2]int{y.lists[0].Notices(), y.lists[1].Notices()}
	if err := y.process.Pause(); err != nil {
		return err
	}
	unpaused := make(chan error, 1)
	time.AfterFunc(time.Second, func() { unpaused <- y.process.Unpause() })
	end := time.Now().Add(2500 * time.Millisecond)
	err := y.both(func(i int) error {
		for time.Now().Before(end) {
			if err := y.agree(ctx, i, true); err != nil {
				return err
			}
			time.Sleep(200 * time.Millisecond) // so that the machine is not busy all the time
		}
		return nil
	})
	for i, l := range y.lists {
		if after := l.Notices(); after != before[i] {
			err = errors.Join(err, fmt.Errorf("the member of hub %d was told of %d changes", i, after-before[i]))
		}
	}
	return errors.Join(err, <-unpaused)
}

// kill kills the process, and notes how long it takes until it is gone.
func (y *try) kill(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*y.within)
	defer cancel()
	before := y.lists[0].Notices()
	if err := y.process.Kill(); err != nil {
		return err
	}
	killed := time.Now() // a large process takes its time to end
	errs := make(chan error)
	for i := range y.hubs {
		for _, w := range ways {
			go func() { errs <- y.untilGone(ctx, i, w, killed) }()
		}
	}
	var err error
	for range len(y.hubs) * len(ways) {
		err = errors.Join(err, <-errs)
	}
	if err != nil {
		return err
	}
	if after := y.lists[0].Notices(); after != before+1 {
		return fmt.Errorf("the members of the process went in %d steps", after-before)
	}
	return y.both(func(i int) error { return y.agree(ctx, i, false) })
}

// untilGone waits until nothing of the process is left.
func (y *try) untilGone(ctx context.Context, i int, w way, killed time.Time) error {
	err := y.until(ctx, func() error { return w.check(ctx, y, i, false) })
	took := time.Since(killed)
	if err == nil && took > y.within {
		err = fmt.Errorf("%s of hub %d: gone after %v", w.name, i, took)
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	y.gone[w.name] = append(y.gone[w.name], took)
	return err
}

// report logs the times that it took until processes were gone.
func report(t *testing.T, tries []*try) {
	for _, w := range ways {
		var times []time.Duration
		for _, y := range tries {
			times = append(times, y.gone[w.name]...)
		}
		if len(times) == 0 {
			continue
		}
		slices.Sort(times)
		t.Logf("%s: gone after %v (median), %v (most) on %d hubs", w.name,
			times[len(times)/2].Round(time.Millisecond), times[len(times)-1].Round(time.Millisecond), len(times))
	}
}
