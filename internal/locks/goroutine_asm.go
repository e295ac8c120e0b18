//go:build lockcheck && (amd64 || arm64)

package locks

// goroutine returns a number that no other running goroutine has: the address
// of the runtime's descriptor. Taking the number from a stack trace would make
// tests some hundred times slower.
func goroutine() uintptr
