package redis_test

import (
	"context"
	"crypto/tls"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/redis"
	"github.com/fanoutgo/fanout/internal/rediscontract"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
)

func TestContractBehindSentinel(t *testing.T) {
	t.Parallel()
	rediscontract.RunSentinel(t, newAdapter)
}

// Classic Pub/Sub has no slots, so only histories need all of them.
func TestClusterDown(t *testing.T) { rediscontract.RunClusterDown(t, false, newAdapter) }

// openLogged opens an adapter that logs.
func openLogged(option rueidis.ClientOption, log *slog.Logger) (adapter.Adapter, error) {
	return redis.Open(option, &redis.Options{Logger: log})
}

func TestOpenConnectsWhenItCan(t *testing.T) {
	t.Parallel()
	rediscontract.RunOpen(t, openLogged)
}

func TestServerThatIsTooOld(t *testing.T) { rediscontract.RunOldServer(t, false, openLogged) }

// A server that wants certificates of its clients.
func TestTLS(t *testing.T) {
	t.Parallel()
	o, client := redistest.WithTLS(t, redistest.Options{})
	s := redistest.NewServer(t, o)
	for name, c := range map[string]struct {
		config *tls.Config
		says   string // "": it works
	}{
		"with a certificate":        {client, ""},
		"without a certificate":     {&tls.Config{RootCAs: client.RootCAs, ServerName: client.ServerName}, "may want a client certificate"},
		"with an unknown authority": {&tls.Config{ServerName: client.ServerName, Certificates: client.Certificates}, "certificate signed by unknown authority"},
		"without TLS":               {nil, "expect TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			option := s.ClientOption()
			option.TLSConfig = c.config
			a, err := openAdapter(option)
			require.NoError(t, err)
			h, err := fanout.New(a, &fanout.Options{Room: func(string) fanout.RoomOptions {
				return fanout.RoomOptions{Retain: fanout.Retention{Messages: 10}}
			}})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, h.Close(soon(t, time.Minute))) })
			m, err := h.Connect(nil)
			require.NoError(t, err)
			if c.says == "" {
				require.NoError(t, h.Room("x").Join(soon(t, time.Minute), m))
				require.NoError(t, h.Room("x").Publish(soon(t, time.Minute), []byte("hello")))
				msg, err := m.Receive(soon(t, time.Minute))
				require.NoError(t, err)
				require.Equal(t, "hello", string(msg.Data))
				require.NoError(t, h.Health(soon(t, time.Minute)))
				return
			}
			require.Eventually(t, func() bool {
				err := h.Health(soon(t, time.Second))
				return err != nil && strings.Contains(err.Error(), c.says)
			}, time.Minute, 10*time.Millisecond, "it has tried")
			err = h.Room("x").Publish(soon(t, 5*time.Second), []byte("lost"))
			require.ErrorIs(t, err, fanout.ErrUnsent)
			require.ErrorContains(t, err, c.says)
		})
	}
}

func soon(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}
