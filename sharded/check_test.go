package sharded_test

import (
	"testing"

	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

// A check says what works, and leaves no keys behind.
func TestCheck(t *testing.T) {
	t.Parallel()
	s := redistest.NewServer(t, redistest.Options{Args: []string{
		"--maxmemory-policy", "allkeys-lru", "--client-output-buffer-limit", "pubsub 1mb 0 0",
	}})
	as := func(t *testing.T, rights ...string) *sharded.Report {
		t.Helper()
		set := append([]string{"ACL", "SETUSER", "checked", "reset", "on", ">secret", "~fanout:*", "&fanout:*", "+@all"}, rights...)
		require.NoError(t, s.Do(t.Context(), set...).Error())
		r, err := sharded.Check(within(t), s.Client(t, func(o *rueidis.ClientOption) { o.Username, o.Password = "checked", "secret" }))
		require.NoError(t, err)
		require.Len(t, r.Nodes, 1)
		return r
	}
	for _, c := range []struct {
		name   string
		rights []string
		ok     bool
		says   []string
	}{
		{"everything", nil, true, []string{"histories: by functions", "Redis 7.0", "one server", "allkeys-lru", "1048576 bytes", "can be trusted: yes", "Under allkeys-lru", "raise client-output-buffer-limit"}},
		{"no functions", []string{"-fcall"}, true, []string{"histories: by EVALSHA, since", "refused (histories, or EVALSHA): FCALL: NOPERM"}},
		{"no INFO", []string{"-fcall", "-info"}, true, []string{"histories: by EVALSHA without a replication ID", "Grant INFO", "version not told"}},
		{"no scripts", []string{"-fcall", "-evalsha"}, false, []string{"histories: none", "cannot be kept: they need"}},
		{"no XADD", []string{"-xadd"}, false, []string{"do not work without XADD"}},
		{"no subscriptions", []string{"-ssubscribe"}, false, []string{"Rooms do not work without SSUBSCRIBE", "can be trusted: no"}},
		{"no leaving", []string{"-sunsubscribe"}, true, []string{"rooms that were left stay subscribed"}},
		{"no ROLE and INFO", []string{"-role", "-info"}, true, []string{"Without ROLE and INFO"}},
		{"no CONFIG", []string{"-config"}, true, []string{"output limit of subscribers: not told", "eviction policy: allkeys-lru"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := as(t, c.rights...)
			for _, text := range c.says {
				require.Contains(t, r.String(), text)
			}
			require.Equal(t, c.ok, r.OK(), r)
		})
	}
	keys, err := s.Do(t.Context(), "DBSIZE").AsInt64()
	require.NoError(t, err)
	require.Zero(t, keys)
}

func TestCheckOfAClusterWithReplicas(t *testing.T) {
	onClusters(t, func(t *testing.T, c *redistest.Cluster) {
		r, err := sharded.Check(within(t), c.Client(t))
		require.NoError(t, err)
		require.Len(t, r.Nodes, 3)
		require.Contains(t, r.String(), "sharded Pub/Sub, cluster\n")
		require.Contains(t, r.String(), "works (reading from replicas): CLUSTER LINKS\n")
		require.True(t, r.OK(), r)
		for _, n := range r.Nodes {
			require.Equal(t, 1, n.Counts)
			require.Empty(t, n.Advice)
		}
	})
}

func TestCheckOfOneEndpoint(t *testing.T) {
	t.Parallel()
	c := redistest.NewCluster(t, redistest.Options{Primaries: 1})
	r, err := sharded.Check(within(t), c.Client(t, func(o *rueidis.ClientOption) { o.ForceSingleClient = true }))
	require.NoError(t, err)
	require.Contains(t, r.String(), "one endpoint before many shards")
	require.Contains(t, r.String(), "OSS Cluster API")
}

func TestCheckOfServersThatAreDown(t *testing.T) {
	t.Parallel()
	s := redistest.NewServer(t, redistest.Options{})
	client := s.Client(t)
	require.NoError(t, s.Kill(t.Context()))
	_, err := sharded.Check(within(t), client)
	require.Error(t, err)
	_, err = sharded.Check(within(t), nil)
	require.ErrorContains(t, err, "the client is nil")
}
