package sharded_test

import (
	"testing"

	"github.com/fanoutgo/fanout/internal/rediscontract"
	"github.com/fanoutgo/fanout/internal/redistest"
)

// They run when all tests that are not parallel are over, so the clusters are
// theirs.
func TestContractOnACluster(t *testing.T) {
	t.Parallel()
	redistest.OnImages(t, func(t *testing.T, image string) {
		t.Parallel()
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
