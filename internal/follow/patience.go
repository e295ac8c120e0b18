package follow

import "time"

// A frame may come whose place the history does not have; see the package
// documentation. It is held while the history is read again, after waits that
// double from firstWait to lastWait, for waitTime. Then it is delivered without
// a position.
//
// For waitMemory after the last time, another such frame costs the room only
// one reading. These readings are at least waitPause apart.
const (
	firstWait  = 50 * time.Millisecond
	lastWait   = 800 * time.Millisecond
	waitTime   = 2 * time.Second
	waitMemory = time.Minute
	waitPause  = 250 * time.Millisecond
)

// patience bounds the readings of a history that bring no progress. The zero
// value is ready to use; a time of zero is none.
type patience struct {
	since  time.Time     // the first reading without progress
	delay  time.Duration // before the next reading
	gaveUp time.Time     // when it ended last
}

// noProgress returns how long to wait after a reading that brought nothing, or
// that no further reading is to be made.
func (p *patience) noProgress(now time.Time) (wait time.Duration, giveUp bool) {
	if p.since.IsZero() {
		p.since, p.delay = now, firstWait
	}
	if p.isOver(now) || now.Sub(p.since) >= waitTime {
		p.since, p.gaveUp = time.Time{}, now
		return 0, true
	}
	wait = p.delay
	p.delay = min(2*p.delay, lastWait)
	return wait, false
}

// progress ends a series of readings that brought nothing.
func (p *patience) progress() { p.since = time.Time{} }

func (p *patience) isOver(now time.Time) bool {
	return !p.gaveUp.IsZero() && now.Sub(p.gaveUp) < waitMemory
}

// pause says how long to wait before a reading that a frame asks for.
func (p *patience) pause(now time.Time) time.Duration {
	if !p.isOver(now) {
		return 0
	}
	return max(0, waitPause-now.Sub(p.gaveUp))
}
