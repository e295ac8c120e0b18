package main

import (
	"bytes"
	"context"
	"os"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/internal/soak/check"
	"github.com/fanoutgo/fanout/internal/soak/world"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { redistest.Main(m) }

func TestGuaranteesHoldThroughFaults(t *testing.T) {
	redistest.Long(t)
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			// Few slots: Valkey has its replicas confirm each of them.
			cfg := config{
				Config: world.Config{
					Seed: uint64(time.Now().UnixNano()), Rooms: 16, Movers: 6, Pace: 40 * time.Millisecond, Log: new(world.Journal),
				},
				server: s.name, image: s.image, slots: 100,
			}
			cfg.faults = chosen(t, "slots move", "killed", "manual", "cut from all", "CLIENT KILL", "output buffer", "restarts", "FLUSH")
			r := run(t.Context(), cfg)
			redistest.Must(t, r.err)
			if r.failed() {
				cfg.Log.Print(os.Stderr)
			}
			var out bytes.Buffer
			show(&out, r)
			t.Log(out.String())
			require.Empty(t, r.report.Failures)
			sum := summed(r.report.Figures)
			require.Zero(t, sum[len(sum)-1].Silent)
			require.Positive(t, sum[len(sum)-1].Received)
			require.Positive(t, sum[len(sum)-1].Lists)
		})
	}
}

// chosen returns the faults with these words in their names.
func chosen(t *testing.T, words ...string) []fault {
	t.Helper()
	var list []fault
	for _, word := range words {
		faults := named(allFaults(false), word)
		require.Len(t, faults, 1, word)
		list = append(list, faults...)
	}
	return list
}

// A run that is interrupted ends, says why, and leaves nothing behind.
func TestARunThatIsInterruptedEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg := config{
		Config: world.Config{Rooms: 4, Movers: 2, Pace: 10 * time.Millisecond, Log: new(world.Journal)},
		server: servers[0].name, image: servers[0].image, slots: 10,
	}
	cfg.faults = []fault{{name: "interruption", happen: func(ctx context.Context, _ *trial) error {
		cancel()
		<-ctx.Done()
		return context.Cause(ctx)
	}}}
	r := run(ctx, cfg)
	if ctx.Err() == nil { // there are no servers
		redistest.Must(t, r.err)
	}
	require.ErrorIs(t, r.err, context.Canceled)
	require.Empty(t, r.report.Failures, "what was recorded until then is right")
}

func TestFailuresGiveAnExitCode(t *testing.T) {
	good := &result{config: config{server: "redis8", Config: world.Config{Seed: 7}}}
	bad := &result{config: config{server: "redis8", Config: world.Config{Seed: 8}}, report: check.Report{
		Failures: []check.Failure{{Rule: check.Silence, Room: "x"}},
		Figures:  []check.Figures{{Fault: "none", Silent: 1, Failures: 1}},
	}}
	var out bytes.Buffer
	require.Zero(t, conclude(&out, []*result{good}))
	require.NotZero(t, conclude(&out, []*result{good, bad}))
	require.Contains(t, out.String(), "FAILED: -server redis8 -seed 8")
	require.NotZero(t, conclude(&out, nil))
}

func TestBadFlagsAreRefused(t *testing.T) {
	for _, args := range [][]string{{"-server", "redis6"}, {"-fault", "nobody has thought of it"}, {"-seeds", "0"}, {"-what"}} {
		require.Equal(t, 2, soak(t.Context(), args, &bytes.Buffer{}, &bytes.Buffer{}), args)
	}
}
