package fanout

import "time"

// A frame may come whose place the history does not have: a server lags behind,
// the history was flushed or evicted, or somebody has made the frame up. It is
// held back while the history is read again, after waits that double from
// firstDoubt to lastDoubt, for doubtTime. Then its messages are delivered without
// a position, after an Unknown gap.
//
// A room in which that has happened is not patient for doubtMemory after the
// last time: such a frame costs it one reading, and those are at least doubtPause
// apart.
const (
	firstDoubt  = 50 * time.Millisecond
	lastDoubt   = 800 * time.Millisecond
	doubtTime   = 2 * time.Second
	doubtMemory = time.Minute
	doubtPause  = 250 * time.Millisecond
)

// patience bounds the readings of a history that bring no progress. The zero
// value is ready to use; a time of zero is none.
type patience struct {
	since  time.Time     // the first reading in vain
	delay  time.Duration // before the next reading
	gaveUp time.Time     // when it ended last
}

// vain says how long to wait after a reading that was in vain, or that it was the
// last one.
func (p *patience) vain(now time.Time) (wait time.Duration, giveUp bool) {
	if p.since.IsZero() {
		p.since, p.delay = now, firstDoubt
	}
	if p.tired(now) || now.Sub(p.since) >= doubtTime {
		p.since, p.gaveUp = time.Time{}, now
		return 0, true
	}
	wait = p.delay
	p.delay = min(2*p.delay, lastDoubt)
	return wait, false
}

// progress ends a series of readings in vain.
func (p *patience) progress() { p.since = time.Time{} }

func (p *patience) tired(now time.Time) bool {
	return !p.gaveUp.IsZero() && now.Sub(p.gaveUp) < doubtMemory
}

// pause says how long to wait before a reading that a frame asks for.
func (p *patience) pause(now time.Time) time.Duration {
	if !p.tired(now) {
		return 0
	}
	return max(0, doubtPause-now.Sub(p.gaveUp))
}
