package nats

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/nats/internal/numbers"
	"github.com/nats-io/nats.go"
)

// read is the reader. It makes all calls of the receiver, one after the other,
// and waits for nothing else.
func (a *Adapter) read() {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	now := time.Now()
	beaconAt := now.Add(beaconEvery)
	for {
		select {
		case m := <-a.inbox:
			a.handle(m, now)
		case <-a.changes:
			now = time.Now()
			a.noteBreaks()
			a.finish(now)
		case now = <-tick.C:
			a.noteBreaks()
			a.finish(now)
			a.deadlines(now)
			if !now.Before(beaconAt) {
				beaconAt = now.Add(beaconEvery)
				a.out.put(&item{kind: kindBeacon, kept: a.seen()})
			}
		case <-a.life.Done():
			return
		}
	}
}

// handle deals with a message. One that cannot be read is dropped: no adapter
// sent it.
func (a *Adapter) handle(m *nats.Msg, now time.Time) {
	if len(m.Data) == 0 {
		return
	}
	r := &reader{rest: m.Data[1:]}
	if m.Subject == a.syncSubject() {
		switch m.Data[0] {
		case kindBeacon:
			a.beacon(readBeacon(r, a.o.Partitions), r, now)
		case kindAsk:
			a.asked(readAsk(r, a.o.Partitions), r, now)
		case kindClaim:
			if m := readClaim(r); !r.bad && m.id != a.id {
				a.claims.note(m, time.Now()) // now may be a tick ago
			}
		}
		return
	}
	p, err := strconv.Atoi(strings.TrimPrefix(m.Subject, a.o.Prefix+".p."))
	if err != nil || p < 0 || p >= len(a.partitions) {
		return
	}
	switch m.Data[0] {
	case kindFrame:
		a.frame(p, r, now)
	case kindMark:
		a.marked(p, readMark(r), r, now)
	case kindKept:
		a.keptFrame(p, m, r)
	}
}

// call calls the receiver for a channel. a.mu is held, and is not meanwhile.
func (a *Adapter) call(c *channel, f func(r adapter.Receiver, name string)) {
	if c.dropped {
		return
	}
	r := a.receiver
	a.busy = c
	a.mu.Unlock()
	f(r, c.name)
	a.mu.Lock()
	a.busy = nil
	a.idle.Broadcast()
}

func interrupted(r adapter.Receiver, name string) { r.Interrupted(name) }
func restored(r adapter.Receiver, name string)    { r.Restored(name) }

func (a *Adapter) frame(p int, r *reader, now time.Time) {
	id, n := r.id(), r.uvarint()
	name := r.bytes(r.uvarint())
	if r.bad || n == 0 {
		return
	}
	frame := r.rest[:len(r.rest):len(r.rest)]
	a.mu.Lock()
	defer a.mu.Unlock()
	deliver, gap := a.tracker.Frame(p, id, n, now)
	if gap {
		a.gap(p)
	}
	if c := a.channels[string(name)]; deliver && c != nil && c.state != waiting {
		a.call(c, func(r adapter.Receiver, name string) { r.Receive(name, frame) })
	}
}

func (a *Adapter) keptFrame(p int, m *nats.Msg, r *reader) {
	seq, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
	if err != nil {
		return // no stream has kept it
	}
	rec, err := readRecord(r)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lastKept[p] = seq
	if a.tracker.Kept(p, seq) {
		a.gap(p)
	}
	if err != nil {
		return
	}
	a.heads.follow(&rec, seq)
	c := a.channels[rec.channel]
	if c == nil || c.state == waiting || rec.messages == 0 || a.kept == nil || !c.at.Before(rec.at) {
		return
	}
	c.at = rec.at
	kept := a.kept
	a.call(c, func(_ adapter.Receiver, name string) {
		kept.ReceiveKept(name, adapter.KeptFrame{At: rec.at, Frame: rec.frame})
	})
}

// gap tells the channels of a partition that something is missing.
func (a *Adapter) gap(p int) {
	var list []*channel
	for _, c := range a.partitions[p].channels {
		if c.state == live {
			list = append(list, c)
		}
	}
	for _, c := range list {
		a.call(c, interrupted)
		a.call(c, restored)
	}
}

func (a *Adapter) beacon(m beacon, r *reader, now time.Time) {
	if r.bad {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if m.partitions != a.o.Partitions {
		if a.misfit == nil {
			err := fmt.Errorf("nats: another hub has %d partitions, this one has %d: they don't hear each other", m.partitions, a.o.Partitions)
			a.misfit = err
			a.tasks.Go(func() { a.o.Logger.Error("nats: other hubs have other options", "error", err) })
		}
		a.misfitAt = now
		return
	}
	a.tracker.Heard(m.id, now)
	for p := range a.partitions {
		if a.tracker.Mark(p, m.id, m.sent[p], now) {
			a.gap(p)
		}
		if m.kept[p] > 0 {
			a.tracker.Claim(p, m.kept[p], now)
		}
	}
	if m.bye {
		a.tracker.Bye(m.id)
		if a.round != nil {
			for want := range a.round.missing {
				if want.id == m.id {
					delete(a.round.missing, want)
				}
			}
		}
	}
}

func (a *Adapter) asked(m ask, r *reader, now time.Time) {
	if r.bad {
		return
	}
	a.mu.Lock()
	a.tracker.Heard(m.id, now)
	for i, p := range m.partitions {
		if a.tracker.Mark(p, m.id, m.sent[i], now) {
			a.gap(p)
		}
	}
	own := m.id == a.id
	if own && a.round != nil && a.round.id == m.round {
		a.round.seen = true
	}
	a.mu.Unlock()
	if own {
		a.finish(now)
		return
	}
	for _, p := range m.partitions {
		a.out.put(&item{kind: kindMark, partition: p, mark: mark{id: a.id, asker: m.id, round: m.round}})
	}
	a.out.put(&item{kind: kindBeacon, kept: a.seen()})
}

func (a *Adapter) marked(p int, m mark, r *reader, now time.Time) {
	if r.bad {
		return
	}
	a.mu.Lock()
	if a.tracker.Mark(p, m.id, m.sent, now) {
		a.gap(p)
	}
	mine := m.asker == a.id && a.round != nil && a.round.id == m.round
	if mine {
		delete(a.round.missing, answer{m.id, p})
	}
	a.mu.Unlock()
	if mine {
		a.finish(now)
	}
}

// noteBreaks interrupts everything if the link has broken since it was last
// called.
func (a *Adapter) noteBreaks() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.link.breaks == a.broke {
		return
	}
	a.broke = a.link.breaks
	a.over()
	for p := range a.partitions {
		if a.tracker.State(p) == numbers.Standing {
			a.tracker.Set(p, numbers.Opening)
		}
	}
	var list []*channel
	for _, c := range a.channels {
		if c.state == live {
			c.state, c.ready = lost, make(chan struct{})
			a.unconfirmed++
			a.pending[c] = struct{}{}
			list = append(list, c)
		}
	}
	for _, c := range list {
		a.call(c, interrupted)
	}
	signal(a.work)
}

// over ends a round that has failed.
func (a *Adapter) over() {
	if a.round != nil {
		close(a.round.done)
		a.round = nil
	}
}

// finish ends the round if no more answers are to be expected.
func (a *Adapter) finish(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.round
	if r == nil {
		return
	}
	for _, right := range []string{"publish ", "subscription "} {
		if err := a.link.denied[right+a.syncSubject()]; err != nil {
			a.refuse(r.channels, err)
			r.vain = true
			a.over()
			return
		}
	}
	late := now.Sub(r.began) >= answerIn
	switch {
	case !r.seen && now.Sub(r.began) >= roundIn:
		a.over()
		return
	case !r.seen, len(r.missing) > 0 && !late, now.Before(r.notBefore):
		return
	}
	if !r.settled {
		select {
		case <-r.answered:
		default:
			close(r.answered)
		}
		return
	}
	for _, p := range r.partitions {
		if a.partitions[p].sub == nil {
			r.vain = true
			continue // it could not be subscribed: the next round tries again
		}
		if err := a.link.denied["subscription "+a.subject(p)]; err != nil {
			a.refusePartition(p, err)
			r.vain = true
			continue
		}
		a.tracker.Set(p, numbers.Standing)
	}
	for _, c := range r.channels {
		if !c.dropped && a.tracker.State(c.in.index) == numbers.Standing {
			a.confirmed(c)
		}
	}
	a.over()
}

// confirmed makes a channel live.
func (a *Adapter) confirmed(c *channel) {
	was := c.state
	if was == live {
		return
	}
	c.state = live
	delete(a.pending, c)
	if was == lost {
		a.unconfirmed--
		a.call(c, restored)
	}
	close(c.ready)
}

func (a *Adapter) refusePartition(p int, err error) {
	var list []*channel
	for _, c := range a.partitions[p].channels {
		list = append(list, c)
	}
	a.refuse(list, err)
}

// refuse ends subscriptions that the server does not permit.
func (a *Adapter) refuse(list []*channel, err error) {
	for _, c := range list {
		if c.dropped || c.state != waiting {
			continue // it was confirmed once, so it is tried again
		}
		c.err = fmt.Errorf("%w: %w", adapter.ErrRefused, err)
		a.dropLocked(c.name)
	}
}

// deadlines acts on answers and frames that did not come in time.
func (a *Adapter) deadlines(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.link.up {
		a.tracker.Tick(now, a.gap)
	}
	if now.Sub(a.misfitAt) > numbers.DeadAfter {
		a.misfit = nil
	}
	if a.link.up && len(a.pending) > 0 {
		signal(a.work)
	}
}
