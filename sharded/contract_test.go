package sharded_test

import (
	"testing"

	"github.com/fanoutgo/fanout/internal/rediscontract"
)

func TestContractOnACluster(t *testing.T)  { rediscontract.RunCluster(t, cluster, newAdapter) }
func TestContractOnRedis70(t *testing.T)   { rediscontract.RunCluster(t, cluster70, newAdapter) }
func TestContractOnValkey81(t *testing.T)  { rediscontract.RunCluster(t, valkey, newAdapter) }
func TestContractOnOneServer(t *testing.T) { rediscontract.RunServer(t, server, newAdapter) }
func TestContractOpened(t *testing.T)      { rediscontract.RunOpenedServer(t, server, openAdapter) }

func TestDocumentedACL(t *testing.T) { rediscontract.RunACL(t, "sharded.go", newAdapter) }
