package questions

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/ask"
	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/gate"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/notices"
)

const (
	// maxNotes bounds the control notices that wait to be handled. More are
	// dropped, and their senders ask again.
	maxNotes = 4096
	// maxAnswering bounds the questions that are answered at a time. The answer to
	// any other is to ask again later.
	maxAnswering = 256
	// maxPolls bounds the questions that members of this hub have not answered.
	maxPolls = 2048
)

// Env is the hub that asks and answers. Its functions may be called from any
// goroutine; no lock is held.
type Env struct {
	Notices *notices.Sender
	Ops     *gate.Gate      // the hub is not closed while an operation is in flight
	Closing <-chan struct{} // closed when the hub begins to close

	// Bound returns ctx if it has a deadline, and otherwise a context that ends
	// after Timeout or with the hub. The caller releases it.
	Bound   func(ctx context.Context) (bounded context.Context, release func())
	Timeout time.Duration
	// AwaitOwn waits until the hub hears what is sent to its own channels.
	AwaitOwn func(ctx context.Context) error
	// Explain adds what is known of the backend to an error that comes from the
	// end of ctx.
	Explain func(ctx context.Context, err error) error

	// Known returns the hubs that are there, with this one.
	Known func() []ask.Known
	// Listens returns the indexes of the names of a question whose channels
	// this hub is subscribed to.
	Listens func(q *control.Question) []uint64
	// Perform carries out, on this hub, a question that the hub from has asked. It
	// returns the number of members that were selected, and passes the entries of
	// the answer to t. The place parameter is that of [Switchboard.Put].
	Perform func(ctx context.Context, from uint64, q *control.Question, place any, t Taker) (count uint64, err error)
	// Presence returns who is announced on this hub in the room of a question.
	// The answer has no ID yet.
	Presence func(q *control.Question) *control.Answer
	// Received is told what any hub has sent, before it is handled.
	Received func(from uint64, p control.Payload)
	// IsGone reports whether a hub is known to have ended.
	IsGone func(hub uint64) bool
	// IsWatched reports whether a hub is there, and its end would be noticed
	// within seconds.
	IsWatched func(hub uint64) bool
	// IsNew reports whether this hub may not know all others.
	IsNew func() bool
	// NoteUncounted is told that the backend does not count receivers.
	NoteUncounted func()
	// Malformed is told of what cannot be decoded.
	Malformed func(err error)
	// SweepLater arranges for [Switchboard.Sweep] to be called soon.
	SweepLater func()
}

// ErrNotUnderstood is returned by Env.Perform for a question of a newer
// release.
var ErrNotUnderstood = errors.New("question not understood")

// A Taker takes the entries of an answer.
type Taker interface {
	Put(e *control.Entry) error
	// Flush hands on what has been put, and the number of members that were
	// selected.
	Flush(count uint64) error
	// Rest says that the question no longer counts as busy, while members think
	// about their answers.
	Rest()
}

// A Switchboard has the questions that a hub asks and those that it answers.
// Init makes it. Its methods may be called concurrently.
type Switchboard struct {
	env Env

	mu        locks.Mutex[locks.Innermost] // guards all below
	queue     []note
	working   bool               // a goroutine takes notes out of the queue
	questions map[uint64]*asking // of this hub, by ID
	lastID    uint64             // of a question
	commands  ask.Commands       // questions that this hub has got
	answers   map[ask.Key]*answering
	polls     map[*byte]*Poll // questions to members, by their data
	busy      int             // goroutines that answer
}

// A note is a control notice that has arrived.
type note struct {
	from    uint64 // the hub that sent it
	payload []byte
	place   any
}

// Init makes s, which is zero, the switchboard of a hub.
func (s *Switchboard) Init(env *Env) {
	s.env = *env
	s.questions, s.answers = make(map[uint64]*asking), make(map[ask.Key]*answering)
	s.polls = make(map[*byte]*Poll)
}

// Put takes the payload of a notice that a hub has sent. The place says where
// in a room the notice came; a question is performed with it. Put does not
// wait.
func (s *Switchboard) Put(from uint64, payload []byte, place any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) >= maxNotes {
		return
	}
	s.queue = append(s.queue, note{from, payload, place})
	if !s.working {
		s.working = true
		s.env.Notices.Go(s.work)
	}
}

// work deals with what is in the queue.
func (s *Switchboard) work() {
	for {
		s.mu.Lock()
		notes := s.queue
		s.queue = nil
		s.working = len(notes) > 0
		s.mu.Unlock()
		if len(notes) == 0 {
			return
		}
		for i := range notes {
			s.handle(&notes[i])
		}
	}
}

func (s *Switchboard) handle(n *note) {
	p, err := control.Decode(n.payload)
	switch {
	case errors.Is(err, control.ErrUnknown):
		return // of a newer release
	case err != nil:
		s.env.Malformed(err)
		return
	}
	s.env.Received(n.from, p)
	switch p := p.(type) {
	case *control.Question:
		s.asked(n, p)
	case *control.Answer:
		s.answered(n.from, p)
	case *control.Credit:
		s.credit(ask.Key{Hub: n.from, ID: p.ID}, p)
	case *control.Cancel:
		key := ask.Key{Hub: n.from, ID: p.ID}
		s.mu.Lock()
		if a := s.answers[key]; a != nil {
			a.cancel()
		}
		s.commands.Cancel(key)
		s.mu.Unlock()
	}
}

// answered takes a page of an answer. If nobody waits for it, and the hub that
// answers keeps further pages, answered tells that hub.
func (s *Switchboard) answered(from uint64, p *control.Answer) {
	s.mu.Lock()
	a := s.questions[p.ID&^1]
	s.mu.Unlock()
	waits := a != nil && a.tell(news{from: from, answer: p, roll: p.ID&1 == 1})
	if !waits && (p.Status == control.StatusMore || p.Status.Final() && p.Page > 0) {
		s.Reply(from, &control.Cancel{ID: p.ID})
	}
}

// asked takes a copy of a question.
func (s *Switchboard) asked(n *note, q *control.Question) {
	key := ask.Key{Hub: n.from, ID: q.ID}
	reply := &control.Answer{ID: q.ID, Attempt: q.Attempt}
	if q.Op == control.OpRoll {
		reply.Status, reply.Covers = control.StatusLast, s.env.Listens(q)
		s.Reply(n.from, reply)
		return
	}
	wait := time.Duration(min(q.Wait, maxWait)) * time.Millisecond
	expected := s.env.Listens(q)
	s.tellArrived(n.from, q)
	s.mu.Lock()
	verdict := ask.Busy
	free := s.busy < maxAnswering && (q.Op != control.OpAsk || len(s.polls) < maxPolls)
	if free || s.commands.Copies(key) != nil {
		verdict = s.commands.Arrive(key, q.Which, expected, wait, time.Now())
	}
	reply.Covers = s.commands.Copies(key)
	result := s.commands.Result(key)
	running := s.answers[key]
	first := s.commands.Len() == 1
	if verdict == ask.Run {
		s.busy++
		running = s.newAnswering(key, q, reply.Covers, wait)
		s.answers[key] = running
		s.env.Notices.Go(func() { running.run(n) })
	}
	s.mu.Unlock()
	if first {
		s.env.SweepLater()
	}
	switch verdict {
	case ask.Working:
		running.arrived(q.Attempt, reply.Covers)
		reply.Status = control.StatusWorking
	case ask.Again:
		reply = again(result, reply)
	case ask.Busy:
		reply.Status = control.StatusBusy
	default:
		return
	}
	s.Reply(n.from, reply)
}

// tellArrived tells an asker of this hub that its question has come back.
func (s *Switchboard) tellArrived(from uint64, q *control.Question) {
	if from != s.env.Notices.Hub {
		return
	}
	s.mu.Lock()
	a := s.questions[q.ID]
	s.mu.Unlock()
	if a != nil {
		a.tell(news{from: from, arrived: true, lane: int(q.Which), attempt: q.Attempt + 1})
	}
}

// maxWait bounds how long a hub works on a question, in ms.
const maxWait = uint64(10 * time.Minute / time.Millisecond)

// again returns the answer to a later copy of a question: the result, if there
// is one, otherwise a sign of life.
func again(result []byte, to *control.Answer) *control.Answer {
	p, _ := control.Decode(result)
	old, ok := p.(*control.Answer)
	if !ok {
		to.Status = control.StatusWorking
		return to
	}
	old.Attempt, old.Covers = to.Attempt, to.Covers
	return old
}

// sweepPause is how often questions that were answered are looked at, to forget
// them.
const sweepPause = time.Minute

// Sweep forgets answers that nobody asks for now, and returns when to call
// it again.
func (s *Switchboard) Sweep(now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.commands.Tick(now); s.commands.Len() == 0 {
		return time.Time{}
	}
	return now.Add(sweepPause)
}

// Reply sends a payload to a hub's inbox, unless too many are being sent: then
// the other hub asks again. Reply does not wait.
func (s *Switchboard) Reply(to uint64, p control.Payload) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy >= 2*maxAnswering {
		return
	}
	s.busy++
	s.env.Notices.Go(func() {
		defer s.idle()
		_, _ = s.send(to, p)
	})
}

// idle says that a goroutine that answers has ended.
func (s *Switchboard) idle() {
	s.mu.Lock()
	s.busy--
	s.mu.Unlock()
}

// send sends a payload to a hub's inbox, within notices.Timeout, and returns
// how many hubs got it.
func (s *Switchboard) send(to uint64, p control.Payload) (receivers int, err error) {
	ctx, cancel := context.WithTimeout(s.env.Notices.Context, notices.Timeout)
	defer cancel()
	return s.transmit(ctx, to, p.Append(nil))
}

// transmit sends an encoded payload to a hub's inbox, and returns how many hubs
// got it.
func (s *Switchboard) transmit(ctx context.Context, to uint64, payload []byte) (receivers int, err error) {
	if to == s.env.Notices.Hub {
		s.Put(to, payload, nil)
		return 1, nil
	}
	return s.env.Notices.Tell(ctx, to, payload)
}

// credit takes a credit for an answer. If the answer was a single page, its
// asker misses that page, and it is sent again.
func (s *Switchboard) credit(key ask.Key, c *control.Credit) {
	s.mu.Lock()
	a := s.answers[key]
	result := slices.Clone(s.commands.Result(key))
	s.mu.Unlock()
	switch {
	case a != nil:
		a.credit(c)
	case result != nil && c.From == 0:
		if p, _ := control.Decode(result); p != nil {
			s.Reply(key.Hub, p.(*control.Answer))
		}
	}
}

// HubGone tells the questions under way that a hub is gone, and ends the
// answers to it.
func (s *Switchboard) HubGone(hub uint64) {
	s.mu.Lock()
	askings := slices.Collect(maps.Values(s.questions))
	for key, a := range s.answers {
		if key.Hub == hub {
			a.cancel()
		}
	}
	s.mu.Unlock()
	for _, a := range askings {
		a.tell(news{from: hub, gone: true})
	}
}

// Pending returns the number of questions and polls that are under way, and of
// goroutines that answer.
func (s *Switchboard) Pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.questions) + len(s.answers) + len(s.polls) + s.busy
}

// await waits until there is news. It ends earlier with ctx and with the hub.
func (s *Switchboard) await(ctx context.Context, news <-chan struct{}) error {
	select {
	case <-news:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.env.Closing:
		return adapter.ErrClosed
	}
}

// signal wakes the receiver of news, now or when it next waits. The channel has
// a capacity of 1.
func signal(news chan struct{}) {
	select {
	case news <- struct{}{}:
	default:
	}
}
