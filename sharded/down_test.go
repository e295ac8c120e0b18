package sharded_test

import (
	"testing"

	"github.com/fanoutgo/fanout/internal/rediscontract"
)

func TestClusterDown(t *testing.T) { rediscontract.RunClusterDown(t, true, newAdapter) }
