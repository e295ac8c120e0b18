package sharded_test

import (
	"testing"

	"github.com/fanoutgo/fanout/internal/rediscontract"
	"github.com/fanoutgo/fanout/internal/redistest"
)

func TestContractOnACluster(t *testing.T) {
	t.Parallel()
	redistest.OnImages(t, func(t *testing.T, image string) {
		cluster := func(t testing.TB) *redistest.Cluster { return contractClusters(t, image) }
		rediscontract.RunCluster(t, cluster, newAdapter, nil)
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
