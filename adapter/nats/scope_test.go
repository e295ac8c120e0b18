package nats_test

import (
	"os"
	"testing"
)

// everything reports whether all tests are to run, as make test-all runs them.
func everything() bool { return os.Getenv("FANOUT_TEST_ALL") == "1" }

// long skips a test that takes too long for everyone, unless everything is to
// run.
func long(t testing.TB) {
	t.Helper()
	if !everything() {
		t.Skip("skipped: it takes long; make test-all runs it, and so does FANOUT_TEST_ALL=1")
	}
}
