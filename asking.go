package fanout

import (
	"context"
	"strconv"
	"time"

	"github.com/fanoutgo/fanout/internal/ask"
	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/locks"
)

// absentTime is how long notices to a hub have to reach nobody until an asker
// takes the hub for gone.
const absentTime = 2 * time.Second

// maxNews bounds the answers that wait for their asker. Hubs send no more pages
// than they have credit for, so only forged ones are dropped.
const maxNews = 4096

// An asking is a question that this hub has asked. It drives an ask.Question,
// on the goroutine of the caller.
type asking struct {
	hub      *Hub
	op       operation
	ctx      context.Context
	question control.Question
	lanes    []lane
	state    *ask.Question
	take     func(hub uint64, a *control.Answer) bool

	consumed map[uint64]uint64    // pages by hub
	open     map[uint64]bool      // hubs that have begun to answer, and not finished
	absent   map[uint64]time.Time // hubs that credits have not reached, and since when
	failed   []FailedHub
	err      error // of a publish
	stopped  bool  // the caller wants no more
	blind    bool  // the backend does not count receivers

	mu    locks.Mutex[locks.Innermost] // guards news and heard
	news  []news
	heard map[uint64]bool // hubs that have answered
	kick  chan struct{}   // capacity 1: there is news
}

// A lane is a channel that a question goes to.
type lane struct {
	way   *outbound // held
	names []string
	which uint64
}

// News is an answer, or what became of something that was sent.
type news struct {
	from   uint64
	answer *control.Answer
	roll   bool // the answer is to a roll call
	absent bool // what was sent to the hub has reached nobody
	gone   bool // the hub has ended

	lane      int // of the question that was sent, if attempt is not 0
	attempt   uint64
	receivers int
	err       error
}

// ask puts a question to all hubs that have members of the selection, and calls
// take for each page of their answers. It returns when all have answered, when
// take returns false, or with an error.
func (s Selection) ask(ctx context.Context, q *control.Question, take func(hub uint64, a *control.Answer) bool) error {
	q.Names, q.Except, q.ExceptRooms = s.names, s.except, s.exceptRooms
	return s.hub.ask(ctx, q, take, s.lanes)
}

// ask puts a question to the hubs that listen to some channels; see
// Selection.ask. The function lanes returns the channels, and sets the scope.
func (h *Hub) ask(ctx context.Context, q *control.Question, take func(hub uint64, a *control.Answer) bool, lanes func(*control.Question) []lane) error {
	a := &asking{
		hub: h, op: operation{hub: h}, question: *q, take: take, kick: make(chan struct{}, 1), heard: make(map[uint64]bool),
		consumed: make(map[uint64]uint64), open: make(map[uint64]bool), absent: make(map[uint64]time.Time),
	}
	if err := a.op.begin(); err != nil {
		return err
	}
	defer a.op.end()
	ctx, release := h.bound(ctx)
	defer release()
	if err := h.awaitOwn(ctx, nil); err != nil {
		return h.explain(ctx, err)
	}
	var cancel context.CancelFunc
	a.ctx, cancel = context.WithCancel(ctx)
	defer cancel() // ends what is being sent
	if deadline, ok := ctx.Deadline(); ok {
		a.question.Wait = uint64(max(time.Until(deadline).Milliseconds(), 1))
	} else {
		a.question.Wait = uint64(h.opts.PublishTimeout.Milliseconds())
	}
	a.lanes = lanes(&a.question)
	defer a.unhold()
	there := h.known()
	a.question.Credit = ask.CreditFor(len(there))
	a.state = ask.New(len(a.lanes), a.question.Credit, there)
	if a.question.Op.IsCommand() {
		a.state.Thorough()
	}
	a.register()
	defer a.forget()
	return a.run()
}

// lanes returns the channels of a selection, and completes the question.
func (s Selection) lanes(q *control.Question) (lanes []lane) {
	h := s.hub
	switch s.kind {
	case toEveryone:
		q.Scope = control.ScopeEveryone
		o := h.everyone.way()
		o.hold()
		return []lane{{way: o}}
	case toMembers:
		q.Scope = control.ScopeMembers
		byHub := make(map[string]int)
		for _, id := range s.names {
			hub, _ := hubOf(id) // checked before
			i, known := byHub[hub]
			if !known {
				i = len(lanes)
				byHub[hub] = i
				lanes = append(lanes, lane{way: h.wayTo(hub), which: uint64(i)})
			}
			lanes[i].names = append(lanes[i].names, id)
		}
		return lanes
	}
	q.Scope = s.scope()
	for i, name := range s.names {
		room := name
		if s.kind == toUsers {
			room = "" // a user's channel is a room without a name
		}
		way := h.acquire(room, h.channelOf(q.Scope, name)).way()
		lanes = append(lanes, lane{way, s.names, uint64(i)})
	}
	return lanes
}

// register gives the question an ID, which is even: the one after it is that of
// its roll call.
func (a *asking) register() {
	s := &a.hub.switchboard
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID += 2
	a.question.ID = s.lastID
	s.questions[s.lastID] = a
}

func (a *asking) forget() {
	s := &a.hub.switchboard
	s.mu.Lock()
	delete(s.questions, a.question.ID)
	s.mu.Unlock()
}

func (a *asking) unhold() {
	for _, l := range a.lanes {
		l.way.unhold(1)
	}
}

// tell hands news to the asker.
func (a *asking) tell(n news) {
	a.mu.Lock()
	if n.answer != nil && len(a.heard) < maxNews {
		a.heard[n.from] = true
	}
	if len(a.news) < maxNews {
		a.news = append(a.news, n)
	}
	a.mu.Unlock()
	signal(a.kick)
}

// run asks and waits until everything is there.
func (a *asking) run() error {
	a.do(a.state.Start(time.Now()))
	timer := time.NewTimer(time.Until(a.state.Next()))
	defer timer.Stop()
	for {
		a.mu.Lock()
		arrived := a.news
		a.news = nil
		a.mu.Unlock()
		for i := range arrived {
			if a.handle(&arrived[i]); !a.op.runs {
				return ErrClosed
			}
			if a.stopped || a.err != nil {
				a.abandon()
				return a.err
			}
		}
		if a.state.Done() {
			if len(a.failed) > 0 {
				return &PartialError{Failed: a.failed}
			}
			return nil
		}
		timer.Reset(time.Until(a.state.Next()))
		select {
		case <-a.kick:
		case <-timer.C:
			a.do(a.state.Tick(time.Now()))
		case <-a.ctx.Done():
			err := a.partial(a.hub.explain(a.ctx, context.Cause(a.ctx)))
			a.abandon()
			return err
		case <-a.hub.closing:
			return ErrClosed
		}
	}
}

// handle deals with news.
func (a *asking) handle(n *news) {
	now := time.Now()
	switch {
	case n.answer != nil && n.roll:
		delete(a.absent, n.from)
		a.state.Rolled(n.from, n.answer.Covers, now)
	case n.answer != nil:
		delete(a.absent, n.from)
		a.answer(n, now)
	case n.absent:
		a.missing(n.from, now)
	case n.gone:
		delete(a.open, n.from)
		a.do(a.state.Gone(n.from, now))
	case n.err != nil && a.ctx.Err() == nil && n.attempt == 1:
		a.err = n.err
	case n.err != nil:
		// A later attempt is only to find out more.
	default:
		if n.receivers < 0 && !a.blind {
			a.hub.lookout.blind.Store(true)
			if a.blind = true; a.question.Op.IsCommand() {
				a.roll() // wait for hubs that are not known, too
			}
		}
		a.do(a.state.Sent(n.lane, n.attempt-1, n.receivers))
	}
}

// answer takes a page.
func (a *asking) answer(n *news, now time.Time) {
	p := n.answer
	if p.Status.Final() {
		delete(a.open, n.from)
	} else if p.Status != control.StatusBusy {
		a.open[n.from] = true
	}
	if !a.state.Answer(n.from, p, now) {
		return
	}
	switch p.Status {
	case control.StatusNotUnderstood:
		a.failed = append(a.failed, FailedHub{hubID(n.from), "its release does not know what it was asked"})
	case control.StatusFailed:
		why := "it does not say why"
		if len(p.Entries) > 0 {
			why = string(p.Entries[len(p.Entries)-1].Data)
		}
		a.failed = append(a.failed, FailedHub{hubID(n.from), why})
	default:
		if a.op.outside(func() { a.stopped = !a.take(n.from, p) }) != nil {
			return
		}
	}
	a.consumed[n.from]++
	a.do(a.state.Consumed(n.from, a.consumed[n.from]))
}

// do carries out what the question wants. Whatever is sent is sent beside, so
// that answers are taken meanwhile.
func (a *asking) do(act ask.Actions) {
	for _, i := range act.Send {
		l := &a.lanes[i]
		q := a.question
		q.Attempt, q.Which = act.Attempt, l.which
		if l.names != nil {
			q.Names = l.names
		}
		frame := a.hub.controlFrame(q.Append(nil))
		a.beside(l.way, func() {
			receivers, err := l.way.notify(a.ctx, frame)
			a.tell(news{lane: i, attempt: act.Attempt + 1, receivers: receivers, err: err})
		})
	}
	for _, c := range act.Credit {
		way := a.hub.wayTo(hubID(c.Hub))
		a.beside(way, func() {
			ctx, cancel := context.WithTimeout(a.hub.ctx, noticeTimeout) // the last one outlives the asker
			defer cancel()
			receivers, err := a.hub.tellHub(ctx, c.Hub, &control.Credit{ID: a.question.ID, From: c.From, Upto: c.Upto})
			if err == nil && receivers == 0 {
				a.tell(news{from: c.Hub, absent: true})
			}
		})
		way.unhold(1)
	}
	if act.Roll {
		a.roll()
	}
}

// beside calls f on a goroutine of its own, and keeps a channel until then.
func (a *asking) beside(way *outbound, f func()) {
	way.hold()
	a.hub.wg.Go(func() {
		defer way.unhold(1)
		f()
	})
}

// missing notes that a hub that is to answer is not there.
func (a *asking) missing(hub uint64, now time.Time) {
	since, before := a.absent[hub]
	switch {
	case !before:
		a.absent[hub] = now
	case now.Sub(since) >= absentTime:
		delete(a.open, hub)
		a.do(a.state.Gone(hub, now))
	}
}

// roll asks which hubs listen to the channels of the selection. For inboxes it
// is known: if the backend counts, a hub that is not there is not waited for.
func (a *asking) roll() {
	now := time.Now()
	if a.lanes[0].way.to != "" {
		there := make(map[uint64]bool)
		for _, k := range a.hub.known() {
			there[k.Hub] = true
			a.state.Rolled(k.Hub, nil, now)
		}
		for i, l := range a.lanes {
			hub, _ := strconv.ParseUint(l.way.to, 16, 64)    // checked before
			unknown := a.blind || !a.question.Op.IsCommand() // is waited for, too
			if there[hub] || unknown && !a.hub.lookout.takesForGone(hub) {
				a.state.Rolled(hub, []uint64{uint64(i)}, now)
			}
		}
		return
	}
	q := a.question
	q.ID, q.Op, q.Data, q.Text, q.Rooms = q.ID|1, control.OpRoll, nil, nil, nil
	frame := a.hub.controlFrame(q.Append(nil))
	way := a.hub.everyone.way()
	a.beside(way, func() { _, _ = way.notify(a.ctx, frame) }) // it is sent again
}

// abandon tells the hubs that have begun to answer, or keep pages, that nobody
// waits.
func (a *asking) abandon() {
	a.mu.Lock()
	for hub := range a.heard {
		a.open[hub] = true
	}
	a.mu.Unlock()
	for hub := range a.open {
		a.hub.wg.Go(func() {
			ctx, cancel := context.WithTimeout(a.hub.ctx, noticeTimeout)
			defer cancel()
			_, _ = a.hub.tellHub(ctx, hub, &control.Cancel{ID: a.question.ID}) // it notices the end of the time, too
		})
	}
}

// partial returns the error that says who has not answered.
func (a *asking) partial(cause error) error {
	silent, unknown := a.state.Missing()
	heard := make(map[uint64]time.Time)
	for _, k := range a.hub.known() {
		heard[k.Hub] = k.Heard
	}
	e := &PartialError{Unknown: unknown, Failed: a.failed, Err: cause}
	for _, k := range silent {
		since := k.Heard
		if at := heard[k.Hub]; at.After(since) {
			since = at
		}
		e.Silent = append(e.Silent, SilentHub{hubID(k.Hub), since})
	}
	return e
}
