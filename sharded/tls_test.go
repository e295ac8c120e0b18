package sharded_test

import (
	"crypto/tls"
	"testing"

	"github.com/fanoutgo/fanout/internal/rediscontract"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/redis/rueidis"
)

// secured is servers that are reached by TLS.
type secured struct {
	servers
	client *tls.Config
}

func (s secured) Client(t testing.TB, options ...func(*rueidis.ClientOption)) rueidis.Client {
	return s.servers.Client(t, append(options, func(o *rueidis.ClientOption) { o.TLSConfig = s.client })...)
}

// Servers that want certificates of their clients.
func TestTLS(t *testing.T) {
	t.Parallel()
	redistest.OnImages(t, func(t *testing.T, image string) {
		o, client := redistest.WithTLS(t, redistest.Options{Image: image})
		t.Run("a server", func(t *testing.T) {
			t.Parallel()
			s := redistest.NewServer(t, o)
			option := s.ClientOption()
			option.TLSConfig = client
			h := rediscontract.Open(t, openLogged, option)
			h.Recovers()
			w := newWorld(t, secured{s, client}, 2, roomNames(3))
			redistest.Must(t, s.Kill(within(t)))
			redistest.Must(t, s.Start(within(t)))
			w.resumes()
			w.verdict()

			for text, config := range map[string]*tls.Config{
				"may want a client certificate":           {RootCAs: client.RootCAs, ServerName: client.ServerName},
				"certificate signed by unknown authority": {ServerName: client.ServerName, Certificates: client.Certificates},
			} {
				option.TLSConfig = config
				h := rediscontract.Open(t, openLogged, option)
				h.TellsWhy(text)
			}
			option.TLSConfig = nil
			h = rediscontract.Open(t, openLogged, option)
			h.TellsWhy("expect TLS")
		})
		t.Run("a cluster", func(t *testing.T) {
			t.Parallel()
			o := o // the other test reads it
			o.Replicas = redistest.Rounds(0, 1)
			c := redistest.NewCluster(t, o)
			w := newWorld(t, secured{c, client}, 2, roomNames(6))
			if o.Replicas > 0 {
				killPrimary(t, c, w)
			}
			w.resumes()
			w.verdict()
		})
	})
}
