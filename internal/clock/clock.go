// Package clock is a monotonic clock in nanoseconds. A reading takes a third of
// the memory of a time.Time, which matters where there are millions of them,
// and does not jump when the system's clock is set.
package clock

import "time"

var began = time.Now()

// Now returns the nanoseconds since the process began. It is never zero, so
// that zero can mean never.
func Now() int64 { return int64(time.Since(began)) + 1 }

// At returns the reading at a time.
func At(t time.Time) int64 { return int64(t.Sub(began)) + 1 }

// Time returns the time of a reading.
func Time(reading int64) time.Time { return began.Add(time.Duration(reading - 1)) }

// Since returns the time that has passed since a reading.
func Since(reading int64) time.Duration { return time.Duration(Now() - reading) }
