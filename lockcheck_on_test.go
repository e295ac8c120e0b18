//go:build lockcheck

package fanout

const lockcheck = true
