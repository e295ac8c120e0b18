package sharded_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/rediscontract"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/sharded"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

func TestOpenRefusesOptionsThatCannotWork(t *testing.T) {
	for name, o := range map[string]rueidis.ClientOption{
		"no address":      {},
		"no port":         {InitAddress: []string{"10.0.0.1"}},
		"a multiplex":     {InitAddress: []string{"10.0.0.1:6379"}, PipelineMultiplex: 100},
		"an interval":     {InitAddress: []string{"10.0.0.1:6379"}, ClusterOption: rueidis.ClusterOption{ShardsRefreshInterval: -1}},
		"of a sentinel":   {InitAddress: []string{"10.0.0.1:6379"}, Sentinel: rueidis.SentinelOption{MasterSet: "x", TopologyRefreshInterval: -1}},
		"a contradiction": {InitAddress: []string{"10.0.0.1:6379"}, ReplicaOnly: true, SendToReplicas: func(rueidis.Completed) bool { return true }},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := sharded.Open(o, nil)
			require.ErrorIs(t, err, fanout.ErrInvalidOption)
		})
	}
	_, err := sharded.Open(rueidis.ClientOption{InitAddress: []string{"10.0.0.1:6379"}}, &sharded.Options{ProbeTimeout: -1})
	require.ErrorIs(t, err, fanout.ErrInvalidOption)
}

// openLogged opens an adapter that logs.
func openLogged(option rueidis.ClientOption, log *slog.Logger) (adapter.Adapter, error) {
	return sharded.Open(option, &sharded.Options{Logger: log})
}

func TestOpenConnectsWhenItCan(t *testing.T) {
	t.Parallel()
	rediscontract.RunOpen(t, openLogged)
}

func TestServerThatIsTooOld(t *testing.T) { rediscontract.RunOldServer(t, true, openLogged) }

// Close does not wait for a server that is not there, whatever the client waits
// for.
func TestOpenCloses(t *testing.T) {
	s := server(t)
	var net redistest.Net
	net.CutAll()
	defer net.HealAll()
	o := s.ClientOption()
	net.Option()(&o)
	a, err := sharded.Open(o, nil)
	require.NoError(t, err)
	require.NoError(t, a.Attach(ignore{}))
	require.ErrorIs(t, closeWith(t, a, func() error { return a.Subscribe(t.Context(), "fanout:r:{x}") }), fanout.ErrClosed)

	never, err := sharded.Open(o, nil)
	require.NoError(t, err)
	require.NoError(t, never.Close(within(t)))
	require.ErrorIs(t, never.Attach(ignore{}), fanout.ErrClosed)
}

// closeWith closes an adapter while a call waits, and returns that one's error.
func closeWith(t *testing.T, a *sharded.Adapter, call func() error) error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- call() }()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	require.NoError(t, a.Close(ctx))
	return <-ended
}
