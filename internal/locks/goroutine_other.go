//go:build lockcheck && !amd64 && !arm64

package locks

import (
	"bytes"
	"runtime"
	"strconv"
)

// goroutine returns the number of the calling goroutine, from its stack trace:
// "goroutine 18 [running]: …".
func goroutine() uintptr {
	var buf [64]byte
	line := buf[len("goroutine "):runtime.Stack(buf[:], false)]
	digits, _, _ := bytes.Cut(line, []byte(" "))
	n, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil {
		panic(err)
	}
	return uintptr(n)
}
