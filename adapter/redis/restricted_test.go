package redis_test

import (
	"testing"

	"github.com/fanoutgo/fanout/adapter/redis"
	"github.com/fanoutgo/fanout/internal/rediscontract"
	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/stretchr/testify/require"
)

var tested = rediscontract.Adapters{New: newAdapter, Open: openLogged}

// A command that does not exist is refused with another error than one that an
// ACL denies.
func TestRenamedCommands(t *testing.T) {
	t.Parallel()
	redistest.Long(t)
	redistest.OnImages(t, tested.RunRenamed)
}

// Servers that refuse commands, as some services do. The cases that this
// concerns run on all servers, and where all tests are asked for, others run on
// the default server as well.
func TestContractRestricted(t *testing.T) {
	t.Parallel()
	redistest.OnImages(t, func(t *testing.T, image string) {
		t.Parallel()
		shared := redistest.SharedServer(redistest.Options{Image: image, Args: rediscontract.RestrictedArgs()})
		tested.RunRestricted(t, image, shared)
	})
}

func TestCheck(t *testing.T) {
	t.Parallel()
	r, err := redis.Check(t.Context(), server(t).Client(t))
	require.NoError(t, err)
	require.True(t, r.OK(), r)
	require.Contains(t, r.String(), "classic Pub/Sub, one server")
}
