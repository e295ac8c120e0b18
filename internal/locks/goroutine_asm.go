//go:build lockcheck && (amd64 || arm64)

package locks

// goroutine returns a number that the calling goroutine has, and no other one
// that lives: the address of the runtime's descriptor. Taking the number from a
// stack trace would make tests some hundred times slower.
func goroutine() uintptr
