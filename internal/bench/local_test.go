package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/stretchr/testify/require"
)

// inSmall runs a suite in small and returns its report.
func inSmall(t *testing.T, s *suite) *report {
	t.Helper()
	var progress bytes.Buffer
	r, err := run(context.Background(), s, &options{rounds: 1, duration: 10 * time.Millisecond, quick: true}, &progress)
	if errors.Is(err, redistest.ErrUnavailable) {
		t.Skip(err)
	}
	require.NoError(t, err, "%s", &progress)
	return r
}

func TestLocalMeasuresWhatACaseIsAbout(t *testing.T) {
	r := inSmall(t, localSuite)
	require.NotEmpty(t, r.cases)
	for _, c := range r.cases {
		keys := []string{"ns", "cpu"}
		if strings.HasPrefix(c.name, "memory") {
			keys = []string{"idle", "lagging"}
		}
		for _, p := range c.contestants {
			for _, key := range keys {
				v, ok := c.median(p.name, key)
				// In small, what members that lag take more is less than what the
				// garbage collector may have freed meanwhile of cases before.
				require.True(t, ok && (v > 0 || key == "lagging"), "%s: %s: %s is %v", c.name, p.name, key, v)
			}
		}
		for _, target := range c.targets {
			require.NotContains(t, target.verdict(localSuite, c), "not measured")
		}
	}
}

func TestLocalHasTargetsForTheSizesThatMatter(t *testing.T) {
	cases, end, err := localSuite.open(context.Background(), new(options))
	require.NoError(t, err)
	defer end()
	targets := make(map[string]int)
	for _, c := range cases {
		targets[c.name] = len(c.targets)
	}
	require.Equal(t, 2, targets["burst, 1000 members"])
	require.Equal(t, 2, targets["burst, 10000 members"])
	require.Equal(t, 2, targets["lockstep, 10000 members"])
	require.Equal(t, 1, targets["one stuck, 10000 members"])
	require.Equal(t, 2, targets["memory, 100000 members or rooms"])
}

// A broken hall would otherwise measure nothing, and fast.
func TestEveryoneReceivesAllOfABurst(t *testing.T) {
	const members, burst = 3, 5
	for _, p := range localPeers {
		t.Run(p.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			h, err := p.open(hallOptions{rooms: 1, members: members})
			require.NoError(t, err)
			r := newRally(ctx, members, burst)
			for i := range members {
				require.NoError(t, h.join(0, &r.tallies[i]))
				go h.receive(i)
			}
			r.begin()
			for range burst {
				require.Equal(t, int64(members), r.waiting.Load(), "somebody has all before it is said")
				require.NoError(t, h.publish(0, localData))
			}
			require.NoError(t, r.wait())
			require.NoError(t, h.close())
		})
	}
}

func TestATallyThatGetsTooMuchEndsTheTurn(t *testing.T) {
	r := newRally(t.Context(), 2, 1)
	r.begin()
	r.tallies[0].got(2)
	require.Error(t, r.wait())
}
