package main

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/stretchr/testify/require"
)

// runQuick runs a suite in small, and returns its report.
func runQuick(t *testing.T, s *suite) *report {
	var progress bytes.Buffer
	r, err := run(context.Background(), s, &options{rounds: 1, duration: 50 * time.Millisecond, quick: true}, &progress)
	if errors.Is(err, redistest.ErrUnavailable) {
		t.Skip(err)
	}
	require.NoError(t, err, "%s", &progress)
	return r
}

func requireFigures(t *testing.T, r *report, keys ...string) {
	require.NotEmpty(t, r.cases)
	for _, c := range r.cases {
		for _, p := range c.contestants {
			for _, key := range keys {
				v, ok := c.median(p.name, key)
				require.True(t, ok && v > 0, "%s: %s: %s is %v", c.name, p.name, key, v)
			}
		}
	}
}

// requireMeasured is requireFigures for figures from which the cost of idle
// servers is subtracted. In a short run that may leave less than nothing.
func requireMeasured(t *testing.T, r *report, keys ...string) {
	for _, c := range r.cases {
		for _, p := range c.contestants {
			for _, key := range keys {
				_, ok := c.median(p.name, key)
				require.True(t, ok, "%s: %s: %s", c.name, p.name, key)
			}
		}
	}
}

func TestSuiteRedis(t *testing.T) {
	r := runQuick(t, redisSuite)
	requireFigures(t, r, "published", "received", "commands", "in", "out", "servers", "own")
	require.Len(t, r.cases, 9)
	for _, c := range r.cases {
		commands, _ := c.median("raw rueidis", "commands")
		require.InDelta(t, 1, commands, 0.2, c.name) // and a few that ask the server what it has done
		for _, target := range c.targets {
			require.NotContains(t, target.verdict(r.suite, c), "not measured")
		}
	}
}

func TestSuiteCluster(t *testing.T) {
	r := runQuick(t, clusterSuite)
	requireFigures(t, r, "published")
	requireMeasured(t, r, "in", "out")
	require.NotEmpty(t, r.notes)
	for i, c := range r.cases {
		classic, _ := c.median("raw PUBLISH", "bus")
		require.InDelta(t, 1+i, classic, 0.1, c.name) // to each other node
		sharded, _ := c.median("fanout sharded", "bus")
		require.Zero(t, sharded, c.name)
	}
}

func TestHubsQuickly(t *testing.T) {
	requireFigures(t, runQuick(t, hubsSuite), "cpu", "copy", "out")
}
