package nats_test

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/nats"
	"github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// When several hubs use a partition of a cluster for the first time, one of
// them makes the stream. A server may then tell the others that the name is in
// use, and that it does not know the stream. One that has just started may not
// know enough servers for the replicas. All that passes.
func TestNewStreamThatAServerDoesNotKnowYet(t *testing.T) {
	t.Parallel()
	s, a := withHesitant(t, false)
	at, _, err := a.Append(within(t), "room", record("hello"))
	require.NoError(t, err)
	require.Equal(t, uint64(1), at.Offset)
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Equal(t, 2, s.asked["CREATE"], "until there are enough servers")
	require.Equal(t, 5, s.asked["INFO"], "until it knows the stream, and again when it does not give a record")
	require.Equal(t, 2, s.asked["GET"])
}

// If it does not pass, the error is what the server said last.
func TestNewStreamThatAServerNeverKnows(t *testing.T) {
	t.Parallel()
	_, a := withHesitant(t, true)
	soon, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, _, err := a.Append(soon, "room", record("hello"))
	require.ErrorIs(t, err, adapter.ErrUnsent)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "stream not found")
}

// withHesitant returns an adapter, and what answers it for JetStream.
func withHesitant(t *testing.T, never bool) (*hesitant, *nats.Adapter) {
	f := startFleet(t, 1, func(o *server.Options) { o.JetStream = false })
	nc, err := client.Connect("nats://" + f.addr(0))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	s := &hesitant{asked: make(map[string]int), never: never}
	for _, subject := range []string{"$JS.API.STREAM.*.*", "$JS.API.STREAM.MSG.GET.*", "fanout.h.>"} {
		_, err := nc.Subscribe(subject, s.answer)
		require.NoError(t, err)
	}
	require.NoError(t, nc.Flush())
	a := attached(t, newAdapter(t, f.addr(0), nats.Options{Partitions: 1}))
	connected(t, a)
	return s, a
}

const noPeers jetstream.ErrorCode = 10005

var describe = map[jetstream.ErrorCode]string{
	noPeers:                            "no suitable peers for placement",
	jetstream.JSErrCodeStreamNotFound:  "stream not found",
	jetstream.JSErrCodeStreamNameInUse: "stream name already in use",
	jetstream.JSErrCodeMessageNotFound: "no message found",
}

// A hesitant server answers for JetStream, and comes to know a stream late.
type hesitant struct {
	never bool // comes to know no stream

	mu     sync.Mutex // guards what follows
	asked  map[string]int
	config jetstream.StreamConfig
}

func (s *hesitant) answer(m *client.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	what := "STORE"
	if rest, ok := strings.CutPrefix(m.Subject, "$JS.API.STREAM."); ok {
		what, _, _ = strings.Cut(strings.TrimPrefix(rest, "MSG."), ".")
	}
	s.asked[what]++
	refuse := func(code jetstream.ErrorCode) map[string]any {
		return map[string]any{"error": jetstream.APIError{Code: 404, ErrorCode: code, Description: describe[code]}}
	}
	var reply map[string]any
	switch what {
	case "CREATE":
		_ = json.Unmarshal(m.Data, &s.config)
		reply = refuse(jetstream.JSErrCodeStreamNameInUse)
		if s.asked[what] == 1 {
			reply = refuse(noPeers)
		}
	case "INFO":
		reply = map[string]any{"config": s.config, "created": time.Now(), "state": jetstream.StreamState{}}
		if s.never || s.asked[what] <= 3 { // before and after it is made
			reply = refuse(jetstream.JSErrCodeStreamNotFound)
		}
	case "GET":
		reply = refuse(jetstream.JSErrCodeMessageNotFound)
		if s.asked[what] == 1 {
			reply = refuse(jetstream.JSErrCodeStreamNotFound)
		}
	case "STORE":
		reply = map[string]any{"stream": s.config.Name, "seq": 1}
	}
	if text, err := json.Marshal(reply); err == nil {
		_ = m.Respond(text) // the test may be over
	}
}
