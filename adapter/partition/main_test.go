package partition_test

import (
	"testing"

	"github.com/fanoutgo/fanout/internal/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }
