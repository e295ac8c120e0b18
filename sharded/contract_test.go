package sharded_test

import (
	"testing"

	"github.com/fanoutgo/fanout/internal/rediscontract"
	"github.com/fanoutgo/fanout/internal/redistest"
)

// Nothing runs beside the cases that move slots and kill primaries: a cluster
// that has to wait for the processor fails over when it should not.
func TestContractOnACluster(t *testing.T) {
	redistest.OnImages(t, func(t *testing.T, image string) {
		cluster := func(t testing.TB) *redistest.Cluster { return clusters(t, image) }
		rediscontract.RunCluster(t, cluster, newAdapter)
	})
}

func TestContractOnOneServer(t *testing.T) {
	t.Parallel()
	rediscontract.RunServer(t, server, newAdapter)
}

func TestContractOpened(t *testing.T) {
	t.Parallel()
	rediscontract.RunOpenedServer(t, server, openAdapter)
}

func TestDocumentedACL(t *testing.T) { rediscontract.RunACL(t, "sharded.go", newAdapter) }
