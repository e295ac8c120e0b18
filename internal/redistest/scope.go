package redistest

import (
	"os"
	"testing"
)

// The servers that the project supports.
const (
	Redis70  = "redis:7.0.15"
	Redis80  = "redis:8.0.2"
	Valkey81 = "valkey/valkey:8.1.1"
)

// DefaultImage is the server of tests that run on a single one, and the only
// server of make test. It is the oldest that the project promises to work with:
// what works there works with the others, and a command or argument that only
// newer servers know fails at once. It is also the redis-server of Debian 12
// and Ubuntu 24.04, and with it that of machines without Docker.
const DefaultImage = Redis70

// All reports whether FANOUT_TEST_ALL=1 asks for all tests, as make test-all
// does. Nothing else reads the variable.
func All() bool { return os.Getenv("FANOUT_TEST_ALL") == "1" }

// Images returns the servers that a test runs on if it runs on more than one:
// [DefaultImage], and with FANOUT_TEST_ALL=1 all that the project promises to
// work with.
func Images() []string {
	if All() {
		return []string{Redis70, Redis80, Valkey81}
	}
	return []string{DefaultImage}
}

// OnImages runs a test on each of [Images], in a subtest of its name.
func OnImages(t *testing.T, f func(t *testing.T, image string)) {
	for _, image := range Images() {
		t.Run(image, func(t *testing.T) { f(t, image) })
	}
}

// Long skips a test that takes too long for everyone, unless FANOUT_TEST_ALL=1
// asks for all tests.
func Long(tb testing.TB) {
	tb.Helper()
	if !All() {
		tb.Skip("skipped: it takes long; make test-all runs it, and so does FANOUT_TEST_ALL=1")
	}
}

// Rounds returns how often a test repeats something: few times, or many with
// FANOUT_TEST_ALL=1.
func Rounds(few, many int) int {
	if All() {
		return many
	}
	return few
}
