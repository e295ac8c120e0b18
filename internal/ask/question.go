package ask

import (
	"cmp"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/internal/control"
)

const (
	// A question that is not complete is sent again after firstResend, then
	// after twice that, up to maxResend.
	firstResend = 200 * time.Millisecond
	maxResend   = 2 * time.Second
	// goneResend is the pause after the attempt that follows when a hub has
	// ended. A hub that closes says so before it unsubscribes, so that attempt
	// may still be counted with it.
	goneResend = 10 * time.Millisecond
	// begunTime is how long after its last sign of life a hub that has begun to
	// answer, and is not known to be there, is waited for.
	begunTime = 5 * time.Second
	// rollAt is the attempt with which hubs are asked who listens, to know the
	// names of those that are silent.
	rollAt = 2
)

// A State is how far a hub is with its answer.
type State uint8

const (
	// Silent means that the hub has not answered. Usually it was not asked.
	Silent State = iota
	// Answering means that some of the answer is here, or that the hub says
	// that it is working.
	Answering
	// Finished means that the whole answer is here.
	Finished
	// Ended means that the hub is gone. What it sent before stays, later pages
	// are not used, and nothing that still comes from it makes it another state.
	Ended
)

// A Question has been asked, and waits for its answers.
type Question struct {
	credit   uint64
	attempt  uint64
	channels []channel
	hubs     map[uint64]*hub
	rolling  bool // hubs were asked who listens
	thorough bool // see Thorough
	started  time.Time
	resendAt time.Time
	delay    time.Duration
}

// A channel is one of those that the question goes to.
type channel struct {
	sent      bool   // an attempt was published
	counted   bool   // the backend counts
	attempt   uint64 // the last that was counted
	receivers int    // of that attempt
}

// A hub is a hub that may answer.
type hub struct {
	state    State
	known    bool // it was there when the question was asked
	rolled   bool // it has said to which channels it listens
	listens  []bool
	expected []uint64 // channels: see Expect
	arrived  []uint64 // by channel: the latest attempt that has come, plus one; see Arrived
	answered []uint64 // by channel: the latest attempt that it answered, plus one
	next     uint64   // the page that is to come
	upto     uint64   // the page up to which it has credit
	heard    time.Time
	nudgeAt  time.Time // Answering: when its credit is repeated
	delay    time.Duration
}

// Actions are what the owner of a Question does after an event.
type Actions struct {
	Send    []int // indexes of the channels to publish the question to
	Attempt uint64
	Roll    bool // ask everyone who listens
	Credit  []HubCredit
}

// A HubCredit is a credit to be sent to a hub.
type HubCredit struct {
	Hub        uint64
	From, Upto uint64
}

// Known is a hub that is there.
type Known struct {
	Hub   uint64
	Heard time.Time // when something came from it the last time
}

// New returns a question to a number of channels, at least one. Credit is the
// number of pages that each hub may send beyond what was consumed.
func New(channels int, credit uint64, there []Known) *Question {
	q := &Question{credit: credit, channels: make([]channel, channels), hubs: make(map[uint64]*hub)}
	for _, k := range there {
		h := q.hub(k.Hub)
		h.known, h.heard = true, k.Heard
	}
	return q
}

func (q *Question) hub(id uint64) *hub {
	h := q.hubs[id]
	if h == nil {
		h = &hub{
			listens: make([]bool, len(q.channels)), answered: make([]uint64, len(q.channels)), arrived: make([]uint64, len(q.channels)),
			upto: q.credit, delay: firstResend,
		}
		q.hubs[id] = h
	}
	return h
}

// Thorough makes the question complete only when every hub that is known to be
// there has said whether it listens, also where the backend counts. A hub whose
// subscription is down for a moment is not counted; it gets a later attempt.
func (q *Question) Thorough() { q.thorough = true }

// Expect says that a hub that is there listens to some channels, which is known
// without asking it: every hub listens to its inbox and to the channel of
// everyone, and the asking hub knows its own rooms. The question then waits for
// that hub even if the backend has not counted it, because its subscription is
// down for a moment.
func (q *Question) Expect(id uint64, channels ...uint64) {
	if h := q.hubs[id]; h != nil && h.known {
		h.expected = channels
	}
}

// Arrived says that the question has come to a hub, the asking one, in a
// channel. So the backend has counted it there, for that attempt.
func (q *Question) Arrived(id, channel, attempt uint64) {
	if h := q.hubs[id]; h != nil && channel < uint64(len(q.channels)) && attempt <= q.attempt {
		h.arrived[channel] = max(h.arrived[channel], attempt+1)
	}
}

// Start returns the first attempt.
func (q *Question) Start(now time.Time) (a Actions) {
	q.rolling, a.Roll = q.thorough, q.thorough
	q.started, q.delay = now, firstResend
	q.resendAt = now.Add(q.delay)
	for c := range q.channels {
		a.Send = append(a.Send, c)
	}
	return a
}

// Sent says what became of a question that was published: receivers is the
// number of hubs that got it, -1 if the backend cannot tell.
func (q *Question) Sent(c int, attempt uint64, receivers int) (a Actions) {
	ch := &q.channels[c]
	ch.sent = true
	switch {
	case receivers < 0 && !q.rolling:
		q.rolling, a.Roll = true, true
	case receivers >= 0 && (!ch.counted || attempt >= ch.attempt):
		ch.counted, ch.attempt, ch.receivers = true, attempt, receivers
	}
	return a
}

// Rolled takes a hub's answer to the question who listens: the indexes of the
// channels that it is subscribed to.
func (q *Question) Rolled(id uint64, channels []uint64, now time.Time) {
	h := q.hub(id)
	h.rolled, h.heard = true, now
	for _, c := range channels {
		if c < uint64(len(q.channels)) {
			h.listens[c] = true
		}
	}
}

// Answer takes a page of a hub's answer. It reports whether the page is the
// next one of the hub: if not, it is not used.
func (q *Question) Answer(id uint64, a *control.Answer, now time.Time) bool {
	h := q.hub(id)
	h.heard = now
	if a.Status == control.StatusBusy || a.Attempt > q.attempt {
		return false
	}
	for _, c := range a.Covers {
		if c < uint64(len(q.channels)) {
			h.answered[c] = max(h.answered[c], a.Attempt+1)
		}
	}
	switch h.state {
	case Ended:
		return false
	case Silent, Answering:
		h.state, h.delay = Answering, firstResend
		h.nudgeAt = now.Add(h.delay)
	}
	if !a.Status.HasPage() || h.state == Finished || a.Page != h.next {
		return false
	}
	h.next++
	if a.Status.Final() {
		h.state = Finished
	}
	return true
}

// Consumed says that the asker has dealt with the given number of pages of a
// hub, counted from the first.
func (q *Question) Consumed(id uint64, pages uint64) (a Actions) {
	h := q.hubs[id]
	switch {
	case h == nil || pages > h.next:
		return a
	case h.state == Finished && pages == h.next && pages > 1: // it need not keep them
		a.Credit = append(a.Credit, HubCredit{id, h.next, h.upto})
		return a
	case h.state != Answering:
		return a
	}
	if upto := pages + q.credit; upto > h.upto {
		h.upto = upto
		a.Credit = append(a.Credit, HubCredit{id, h.next, upto})
	}
	return a
}

// Gone notes that a hub has ended. It is remembered also if the question has
// not heard of it, since what it has sent may still come.
func (q *Question) Gone(id uint64, now time.Time) (a Actions) {
	h := q.hub(id)
	if h.state == Ended {
		return a
	}
	waited := h.state == Answering || h.state == Silent
	h.state = Ended
	if waited && !q.Done() {
		a = q.resend(now) // the new count is without it
		q.delay = goneResend
		q.resendAt = now.Add(q.delay)
	}
	return a
}

// There takes the list of the hubs that are there now. The question no longer
// waits for a hub that is missing from it. It waits for begunTime for one that
// has begun to answer, since that may not be known yet.
func (q *Question) There(there []Known, now time.Time) {
	ids := make(map[uint64]bool, len(there))
	for _, k := range there {
		ids[k.Hub] = true
	}
	for id, h := range q.hubs {
		begun := h.state == Answering && now.Sub(h.heard) < begunTime
		if h.state != Finished && !begun && !ids[id] {
			h.state = Ended
		}
	}
}

// Absent notes that a hub that may have been asked is not there: it is not
// waited for. A backend does not count it either.
func (q *Question) Absent(id uint64) {
	if h := q.hubs[id]; h != nil {
		h.state = Ended
	}
}

// Next returns when Tick is due.
func (q *Question) Next() time.Time {
	at := q.resendAt
	for _, h := range q.hubs {
		if h.state == Answering && h.nudgeAt.Before(at) {
			at = h.nudgeAt
		}
	}
	return at
}

// Tick sends again questions and credits that are late.
func (q *Question) Tick(now time.Time) (a Actions) {
	if q.Done() {
		return a
	}
	if !now.Before(q.resendAt) {
		a = q.resend(now)
	}
	for id, h := range q.hubs {
		if h.state == Answering && !now.Before(h.nudgeAt) {
			h.delay = min(2*h.delay, maxResend)
			h.nudgeAt = now.Add(h.delay)
			a.Credit = append(a.Credit, HubCredit{id, h.next, h.upto})
		}
	}
	slices.SortFunc(a.Credit, func(x, y HubCredit) int { return cmp.Compare(x.Hub, y.Hub) })
	return a
}

// resend makes another attempt in the channels that are not complete.
func (q *Question) resend(now time.Time) (a Actions) {
	q.delay = min(2*q.delay, maxResend)
	q.resendAt = now.Add(q.delay)
	for c := range q.channels {
		if !q.complete(c) {
			a.Send = append(a.Send, c)
		}
	}
	if len(a.Send) == 0 {
		return a
	}
	q.attempt++
	a.Attempt = q.attempt
	if q.rolling || q.attempt >= rollAt {
		q.rolling, a.Roll = true, true
	}
	return a
}
