package fanout

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/internal/ask"
	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/wire"
)

const (
	// maxNotes bounds the control notices that wait to be dealt with. More are
	// dropped, and their senders ask again.
	maxNotes = 4096
	// maxAnswering bounds the questions that are answered at a time. To others
	// the answer is to ask again later.
	maxAnswering = 256
	// maxPolls bounds the questions that members of this hub have not answered.
	maxPolls = 2048
)

// A switchboard is what a hub and the others ask and tell each other: it drives
// packages ask and control. The adapter's reader only puts notices into its
// queue, but for announcements of presence, which have a place in the room's
// log; one goroutine, which ends when the queue is empty, takes them out, in
// order, and hands them to those who ask or answer.
type switchboard struct {
	hub   *Hub
	since time.Time // the hub is there

	mu        locks.Mutex[locks.Innermost] // guards all below
	queue     []note
	working   bool               // a goroutine takes notes out of the queue
	questions map[uint64]*asking // of this hub, by ID
	lastID    uint64             // of a question
	commands  ask.Commands       // questions that this hub has got
	answers   map[ask.Key]*answering
	polls     map[*byte]*poll // questions to members, by their data
	busy      int             // goroutines that answer
}

// A note is a control notice that has arrived.
type note struct {
	from    uint64 // the hub that sent it
	payload []byte
	room    *roomState // in whose channel it came; nil: in the inbox
	place   uint64     // the end of the room's log by then
}

func (s *switchboard) init(h *Hub) {
	s.hub, s.since = h, time.Now()
	s.questions, s.answers = make(map[uint64]*asking), make(map[ask.Key]*answering)
	s.polls = make(map[*byte]*poll)
}

// notice takes a notice from the adapter: a hello, a control notice, or one
// that this release does not know, which is none of its business. A nil room is
// the hub's inbox.
func (h *Hub) notice(rs *roomState, channel string, frame []byte) {
	from, payload, err := wire.DecodeControl(frame)
	switch {
	case errors.Is(err, wire.ErrNotice):
		h.receiveNotice(channel, frame)
		return
	case err != nil:
		h.malformed(channel, err)
		return
	}
	h.hellos.Heard(from)
	if control.KindOf(payload) == control.KindAnnouncement {
		if rs != nil && rs.presence() != nil {
			rs.presence().receive(from, payload)
		}
		return
	}
	n := note{from: from, payload: payload, room: rs}
	if rs != nil {
		n.place = rs.log.Mark()
	}
	h.switchboard.put(n)
}

// put puts a note into the queue.
func (s *switchboard) put(n note) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) >= maxNotes {
		return
	}
	s.queue = append(s.queue, n)
	if !s.working {
		s.working = true
		s.hub.wg.Go(s.work)
	}
}

// work deals with what is in the queue.
func (s *switchboard) work() {
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

func (s *switchboard) handle(n *note) {
	p, err := control.Decode(n.payload)
	switch {
	case errors.Is(err, control.ErrUnknown):
		return // of a newer release
	case err != nil:
		s.hub.malformed(s.hub.inbox.channel, err)
		return
	}
	s.hub.lookout.receive(n.from, p)
	switch p := p.(type) {
	case *control.Question:
		s.asked(n, p)
	case *control.Answer:
		s.mu.Lock()
		a := s.questions[p.ID&^1]
		s.mu.Unlock()
		switch {
		case a != nil:
			a.tell(news{from: n.from, answer: p, roll: p.ID&1 == 1})
		case p.Status == control.StatusMore:
			s.reply(n.from, &control.Cancel{ID: p.ID})
		}
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

// asked takes a copy of a question.
func (s *switchboard) asked(n *note, q *control.Question) {
	h := s.hub
	key := ask.Key{Hub: n.from, ID: q.ID}
	reply := &control.Answer{ID: q.ID, Attempt: q.Attempt}
	if q.Op == control.OpRoll {
		reply.Status, reply.Covers = control.StatusLast, h.listens(q)
		s.reply(n.from, reply)
		return
	}
	wait := time.Duration(min(q.Wait, maxWait)) * time.Millisecond
	expected := h.listens(q)
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
		running = newAnswering(h, key, q, reply.Covers, wait)
		s.answers[key] = running
		h.wg.Go(func() { running.run(n) })
	}
	s.mu.Unlock()
	if first {
		h.janitor.wake() // see sweep
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
	s.reply(n.from, reply)
}

// sweepPause is how often questions that were answered are looked at, to forget
// them.
const sweepPause = time.Minute

// sweep forgets answers that nobody asks for, and says when to look again.
func (s *switchboard) sweep(now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.commands.Tick(now); s.commands.Len() == 0 {
		return time.Time{}
	}
	return now.Add(sweepPause)
}

// maxWait bounds how long a hub deals with a question, in ms.
const maxWait = uint64(10 * time.Minute / time.Millisecond)

// again returns an answer that was given before, or a sign of life, as the
// answer to a later copy.
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

// listens returns the indexes of the names of a question whose channels the hub
// is subscribed to.
func (h *Hub) listens(q *control.Question) (which []uint64) {
	if q.Scope == control.ScopeMembers {
		return []uint64{q.Which}
	}
	if q.Scope == control.ScopeEveryone {
		return []uint64{0}
	}
	for i, name := range q.Names {
		rs := h.lookup(h.channelOf(q.Scope, name))
		if rs == nil {
			continue
		}
		rs.mu.Lock()
		if rs.sub == subOn {
			which = append(which, uint64(i))
		}
		rs.mu.Unlock()
	}
	return which
}

// channelOf returns the channel of a name in a question.
func (h *Hub) channelOf(scope control.Scope, name string) string {
	if scope == control.ScopeUsers {
		return h.names.User(name)
	}
	return h.names.Room(name)
}

// reply sends an answer of one page, or a cancel, unless too many are being
// sent.
func (s *switchboard) reply(to uint64, p control.Payload) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy >= 2*maxAnswering {
		return // it asks again
	}
	s.busy++
	s.hub.wg.Go(func() {
		defer s.idle()
		ctx, cancel := context.WithTimeout(s.hub.ctx, noticeTimeout)
		defer cancel()
		_, _ = s.hub.tellHub(ctx, to, p) // it asks again
	})
}

// idle says that a goroutine that answers has ended.
func (s *switchboard) idle() {
	s.mu.Lock()
	s.busy--
	s.mu.Unlock()
}

// credit takes a credit for an answer. For one that was given in one page,
// which its asker misses, the page is sent again.
func (s *switchboard) credit(key ask.Key, c *control.Credit) {
	s.mu.Lock()
	a := s.answers[key]
	result := slices.Clone(s.commands.Result(key))
	s.mu.Unlock()
	switch {
	case a != nil:
		a.credit(c)
	case result != nil && c.From == 0:
		if p, _ := control.Decode(result); p != nil {
			s.reply(key.Hub, p.(*control.Answer))
		}
	}
}

// tellHub sends a payload to a hub's inbox. It returns how many hubs that
// reached, as Adapter.Publish does.
func (h *Hub) tellHub(ctx context.Context, hub uint64, p control.Payload) (receivers int, err error) {
	payload := p.Append(nil)
	if hub == h.num {
		h.switchboard.put(note{from: hub, payload: payload})
		return 1, nil
	}
	o := h.wayTo(hubID(hub))
	defer o.unhold(1)
	return o.notify(ctx, h.controlFrame(payload))
}

// controlFrame returns the frame of a control notice.
func (h *Hub) controlFrame(payload []byte) []byte {
	return wire.AppendControl(nil, h.num, uint64(time.Now().UnixMilli()), payload)
}
