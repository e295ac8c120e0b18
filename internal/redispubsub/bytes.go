package redispubsub

import "unsafe"

// bytesOf returns the bytes of a string without copying. The client makes a new
// string for each message, and nobody writes to the bytes.
func bytesOf(s string) []byte {
	if s == "" {
		return []byte{}
	}
	return unsafe.Slice(unsafe.StringData(s), len(s))
}
