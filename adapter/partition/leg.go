package partition

import (
	"time"

	"github.com/fanoutgo/fanout/internal/backoff"
)

// begin subscribes a leg. If the backend refuses, it tries again until the leg
// is given up, which Subscribe does, and a change of partitions does not.
func (r *route) begin(l *leg, ticket chan struct{}) {
	<-ticket
	defer l.part.give(r.name, ticket)
	r.mu.Lock()
	l.status = sound // notices until now were about an earlier subscription
	r.mu.Unlock()
	for l.ctx.Err() == nil {
		err := l.part.adapter.Subscribe(l.ctx, r.name)
		r.mu.Lock()
		l.refused, l.confirmed = err, err == nil
		if l.confirmed {
			if r.first.IsZero() {
				r.first = time.Now()
			}
			r.changedLeg(l)
		}
		r.signal()
		r.mu.Unlock()
		if err == nil || !backoff.Sleep(l.ctx, refusedPause) {
			return
		}
	}
}

// changedLeg tells the hub what an event at a leg means for the channel. The
// caller holds mu.
func (r *route) changedLeg(l *leg) {
	before := r.told
	r.update()
	if r.wide && r.up && r.told == sound && before == sound && !l.prospective {
		// The other copies still arrive. But a publisher may have reached only this
		// one.
		r.call(interrupted)
		r.call(sound)
	}
}

// update tells the hub the status of the route. The caller holds mu.
func (r *route) update() {
	if !r.up || r.over {
		return
	}
	now := r.stands()
	switch {
	case now == r.told, now == moving && r.told == interrupted:
		return
	}
	r.told = now
	r.call(now)
}

// stands returns the status of the route: of a room that of its worst leg, of a
// channel with copies that of its best.
func (r *route) stands() status {
	worst, best := sound, interrupted
	for _, l := range r.legs {
		if l.prospective {
			continue
		}
		s := l.status
		if !l.confirmed {
			s = interrupted
		}
		worst, best = max(worst, s), min(best, s)
	}
	if r.wide {
		return best
	}
	return worst
}

// call calls the receiver.
func (r *route) call(s status) {
	a := r.owner
	switch {
	case s == sound:
		a.receiver.Restored(r.name)
	case s == moving && a.keeper != nil:
		a.keeper.Moving(r.name)
	default:
		a.receiver.Interrupted(r.name)
	}
}

// signal wakes those that wait for the route. The caller holds mu.
func (r *route) signal() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// notice takes what a partition says about its subscription.
func (r *route) notice(p *part, s status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.legs {
		if l.part == p && !r.over {
			l.status = s
			if l.confirmed {
				r.changedLeg(l)
			}
		}
	}
}

// refusedPause is how long a backend that has refused a subscription is left
// alone.
const refusedPause = 500 * time.Millisecond
