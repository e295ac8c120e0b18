//go:build !unix

package redistest

import "os"

// There are no Redis servers on other systems outside of containers; this
// lets the tests compile.
var processSignals = map[serverSignal]os.Signal{
	terminate: os.Kill, kill: os.Kill, pause: os.Kill, unpause: os.Kill,
}
