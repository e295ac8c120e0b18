//go:build !lockcheck

package fanout

const lockcheck = false
