package sharded_test

import (
	"testing"

	"github.com/fanoutgo/fanout/internal/rediscontract"
)

func TestAcrossHubs(t *testing.T) { rediscontract.RunAcross(t, cluster(t).Client, newAdapter) }
