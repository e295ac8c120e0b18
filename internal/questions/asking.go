package questions

import (
	"context"
	"errors"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/ask"
	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/gate"
	"github.com/fanoutgo/fanout/internal/locks"
)

// maxNews bounds the answers that wait for their asker. Hubs send no more pages
// than they have credit for, so only forged ones are dropped.
const maxNews = 4096

// A Take is called for each page of an answer, outside the operation that asks.
// It returns false if the caller wants no more pages.
type Take func(hub uint64, a *control.Answer) bool

// Incomplete is the error of a question that not all hubs have answered, or not
// all as they should.
type Incomplete struct {
	Silent  []ask.Known // have not answered, or not completely
	Unknown int         // hubs that have not answered, and are not known
	Failed  []Failure
	Err     error // why no more answers were awaited; nil: all have answered
}

// A Failure is a hub that could not do what it was asked.
type Failure struct {
	Hub uint64
	Why string
}

// Error implements error.
func (*Incomplete) Error() string { return "not all hubs have answered" }

// Unwrap returns Err.
func (e *Incomplete) Unwrap() error { return e.Err }

// An asking is a question that this hub has asked. It drives an ask.Question,
// on the goroutine of the caller.
type asking struct {
	board    *Switchboard
	op       *gate.Operation
	ctx      context.Context
	began    time.Time
	question control.Question
	lanes    []Lane
	state    *ask.Question
	take     Take

	consumed  map[uint64]uint64    // pages by hub
	open      map[uint64]bool      // hubs that have begun to answer, and not finished
	absent    map[uint64]time.Time // hubs that credits have not reached, and since when
	listens   []uint64             // channels in which this hub is expected to answer
	failed    []Failure
	err       error // of a publish
	stopped   bool  // the caller wants no more
	uncounted bool  // the backend does not count receivers

	mu        locks.Mutex[locks.Innermost] // guards news, heard and abandoned
	news      []news
	heard     map[uint64]bool // hubs that have answered
	abandoned bool            // nobody waits now, and hubs that were heard are told so
	kick      chan struct{}   // capacity 1: there is news
}

// News is an answer, or what became of something that was sent.
type news struct {
	from   uint64
	answer *control.Answer
	roll   bool // the answer is to a roll call
	absent bool // what was sent to the hub has reached nobody
	gone   bool // the hub has ended

	arrived   bool // this hub has got the question itself
	lane      int  // of the question that was sent, or has arrived, if attempt is not 0
	attempt   uint64
	receivers int
	err       error
}

// Ask puts a question to the hubs that listen to some channels, and calls take
// for each page of their answers. It returns when all have answered, when take
// returns false, or with an error: one of a publish, ErrClosed, or an
// *Incomplete. It waits as long as Env.Bound says.
//
// The lanes function is called once the hub receives what is sent to it. It may
// call the user's code, and panic.
func (s *Switchboard) Ask(ctx context.Context, q *control.Question, take Take, lanes Lanes) error {
	op := s.env.Ops.Begin()
	if op == nil {
		return adapter.ErrClosed
	}
	defer op.End()
	ctx, release := s.env.Bound(ctx)
	defer release()
	if err := s.env.AwaitOwn(ctx); err != nil {
		return s.env.Explain(ctx, err)
	}
	q.Wait = uint64(s.env.Timeout.Milliseconds())
	if deadline, ok := ctx.Deadline(); ok {
		q.Wait = uint64(max(time.Until(deadline).Milliseconds(), 1))
	}
	all := lanes(q)
	defer Release(all)
	err := s.ask(ctx, op, q, take, all)
	if incomplete, is := errors.AsType[*Incomplete](err); is {
		incomplete.Err = s.env.Explain(ctx, incomplete.Err)
	}
	return err
}

// ask is Ask for an operation that has begun.
func (s *Switchboard) ask(ctx context.Context, op *gate.Operation, q *control.Question, take Take, lanes []Lane) error {
	a := &asking{
		board: s, op: op, began: time.Now(), question: *q, lanes: lanes, take: take, kick: make(chan struct{}, 1), heard: make(map[uint64]bool),
		consumed: make(map[uint64]uint64), open: make(map[uint64]bool), absent: make(map[uint64]time.Time),
	}
	var cancel context.CancelFunc
	a.ctx, cancel = context.WithCancel(ctx)
	defer cancel() // ends what is being sent
	a.register()   // first: a hub that goes from now on is not known, or told by HubGone
	defer a.forget()
	there := s.env.Known()
	a.question.Credit = ask.CreditFor(len(there))
	a.state = ask.New(len(a.lanes), a.question.Credit, there)
	a.expect(there)
	return a.run()
}

// register gives the question an ID, which is even: the one after it is that of
// its roll call.
func (a *asking) register() {
	s := a.board
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID += 2
	a.question.ID = s.lastID
	s.questions[s.lastID] = a
}

func (a *asking) forget() {
	s := a.board
	s.mu.Lock()
	delete(s.questions, a.question.ID)
	s.mu.Unlock()
}

// tell hands news to the asker. It returns false if the question has been
// abandoned.
func (a *asking) tell(n news) bool {
	a.mu.Lock()
	if a.abandoned {
		a.mu.Unlock()
		return false
	}
	if n.answer != nil && len(a.heard) < maxNews {
		a.heard[n.from] = true
	}
	if len(a.news) < maxNews {
		a.news = append(a.news, n)
	}
	a.mu.Unlock()
	signal(a.kick)
	return true
}

// run asks and waits until everything is there.
func (a *asking) run() error {
	a.do(a.state.Start(time.Now()))
	timer := time.NewTimer(time.Until(a.state.Next()))
	defer timer.Stop()
	for late := false; ; {
		a.mu.Lock()
		arrived := a.news
		a.news = nil
		a.mu.Unlock()
		for i := range arrived {
			if a.handle(&arrived[i]); !a.op.Runs() {
				return adapter.ErrClosed
			}
			if a.stopped || a.err != nil {
				a.abandon()
				return a.err
			}
		}
		switch {
		case a.state.Done():
			return a.failures()
		case late && a.ownIsLeft():
			return a.endHere(nil)
		}
		timer.Reset(time.Until(a.state.Next()))
		select {
		case <-a.kick:
		case <-timer.C:
			now := time.Now()
			a.state.There(a.there(now), now)
			a.expectOwn()
			a.do(a.state.Tick(now))
			late = true
		case <-a.ctx.Done():
			return a.endHere(context.Cause(a.ctx))
		case <-a.board.env.Closing:
			return adapter.ErrClosed
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
		a.late(n, now)
	case n.answer != nil:
		delete(a.absent, n.from)
		a.answer(n, now)
		a.late(n, now)
	case n.absent:
		a.missing(n.from, now)
	case n.arrived:
		a.state.Arrived(n.from, uint64(n.lane), n.attempt-1)
	case n.gone:
		delete(a.open, n.from)
		a.do(a.state.Gone(n.from, now))
	case n.err != nil && a.ctx.Err() == nil && n.attempt == 1:
		a.err = n.err
	case n.err != nil:
		// A later attempt is only to find out more.
	default:
		if n.receivers < 0 && !a.uncounted {
			a.board.env.NoteUncounted()
			if a.uncounted = true; a.question.Op.IsCommand() {
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
		a.failed = append(a.failed, Failure{n.from, "its release does not know what it was asked"})
	case control.StatusFailed:
		why := "it does not say why"
		if len(p.Entries) > 0 {
			why = string(p.Entries[len(p.Entries)-1].Data)
		}
		a.failed = append(a.failed, Failure{n.from, why})
	default:
		if !a.op.Outside(func() { a.stopped = !a.take(n.from, p) }) {
			return
		}
	}
	a.consumed[n.from]++
	a.do(a.state.Consumed(n.from, a.consumed[n.from]))
}

// do carries out the actions of the question. It sends on other goroutines, so
// that answers are taken meanwhile.
func (a *asking) do(act ask.Actions) {
	send := a.board.env.Notices
	for _, i := range act.Send {
		l := &a.lanes[i]
		q := a.question
		q.Attempt, q.Which = act.Attempt, l.Which
		if l.Names != nil {
			q.Names = l.Names
		}
		frame := send.Frame(&q)
		send.Beside(l.Out, func() {
			receivers, err := l.Out.Notify(a.ctx, frame)
			a.tell(news{lane: i, attempt: act.Attempt + 1, receivers: receivers, err: err})
		})
	}
	for _, c := range act.Credit {
		send.Go(func() { // the last one outlives the asker
			receivers, err := a.board.send(c.Hub, &control.Credit{ID: a.question.ID, From: c.From, Upto: c.Upto})
			if err == nil && receivers == 0 {
				a.tell(news{from: c.Hub, absent: true})
			}
		})
	}
	if act.Roll {
		a.roll()
	}
}

// abandon tells the hubs that have begun to answer, or keep pages, that nobody
// waits now. Other hubs are told when their answers come: see
// Switchboard.answered.
func (a *asking) abandon() {
	a.mu.Lock()
	a.abandoned = true
	for hub := range a.heard {
		a.open[hub] = true
	}
	a.mu.Unlock()
	for hub := range a.open {
		a.board.env.Notices.Go(func() {
			_, _ = a.board.send(hub, &control.Cancel{ID: a.question.ID}) // if it is lost, the hub notices when the asker's time is over
		})
	}
}

// failures returns an error if hubs have failed.
func (a *asking) failures() error {
	if len(a.failed) == 0 {
		return nil
	}
	return &Incomplete{Failed: a.failed}
}

// incomplete returns the error that says which hubs have not answered.
func (a *asking) incomplete(cause error) *Incomplete {
	silent, unknown := a.state.Missing()
	heard := make(map[uint64]time.Time)
	for _, k := range a.board.env.Known() {
		heard[k.Hub] = k.Heard
	}
	e := &Incomplete{Unknown: unknown, Failed: a.failed, Err: cause}
	for _, k := range silent {
		if at := heard[k.Hub]; at.After(k.Heard) {
			k.Heard = at
		}
		e.Silent = append(e.Silent, k)
	}
	return e
}
