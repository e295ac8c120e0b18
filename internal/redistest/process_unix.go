//go:build unix

package redistest

import (
	"os"
	"syscall"
)

var processSignals = map[serverSignal]os.Signal{
	terminate: syscall.SIGTERM,
	kill:      syscall.SIGKILL,
	pause:     syscall.SIGSTOP,
	unpause:   syscall.SIGCONT,
}
