package sharded_test

import (
	"testing"

	"github.com/fanoutgo/fanout/internal/rediscontract"
	"github.com/fanoutgo/fanout/internal/redistest"
)

func TestContractRestricted(t *testing.T) {
	redistest.OnImages(t, func(t *testing.T, image string) {
		shared := redistest.SharedServer(redistest.Options{Image: image})
		rediscontract.RunRestricted(t, shared, newAdapter)
	})
}
