package questions

import (
	"context"
	"errors"
	"time"

	"github.com/fanoutgo/fanout/internal/ask"
	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/locks"
)

// An answering is a question of another hub, or of this one, that is being
// answered. It has a goroutine, on which run is called.
type answering struct {
	board    *Switchboard
	key      ask.Key
	question *control.Question
	ctx      context.Context
	cancel   context.CancelFunc
	kick     chan struct{} // capacity 1: something below has changed

	page control.Answer // being filled
	size int            // of its entries

	resting bool // it no longer counts as busy

	mu      locks.Mutex[locks.Innermost] // guards all below
	pages   *ask.Pages
	again   [][]byte // pages to be sent again
	attempt uint64   // of the latest copy
	copies  []uint64
}

// newAnswering returns the answering of a question whose asker waits for the
// time wait.
func (s *Switchboard) newAnswering(key ask.Key, q *control.Question, copies []uint64, wait time.Duration) *answering {
	a := &answering{
		board: s, key: key, question: q, kick: make(chan struct{}, 1),
		pages: ask.NewPages(max(q.Credit, 1)), attempt: q.Attempt, copies: copies,
	}
	a.ctx, a.cancel = context.WithTimeout(s.env.Notices.Context, wait)
	return a
}

// arrived notes a later copy of the question.
func (a *answering) arrived(attempt uint64, copies []uint64) {
	a.mu.Lock()
	a.attempt, a.copies = max(a.attempt, attempt), copies
	a.mu.Unlock()
}

// credit takes a credit of the asker.
func (a *answering) credit(c *control.Credit) {
	a.mu.Lock()
	if again, ok := a.pages.Credit(c); ok && again != nil {
		a.again = append(a.again[:0:0], again...)
	}
	a.mu.Unlock()
	signal(a.kick)
}

// run answers the question, whose last copy is n.
func (a *answering) run(n *note) {
	defer a.end()
	result, answered := a.answer(n)
	s := a.board
	s.mu.Lock()
	s.commands.Finished(a.key, result)
	s.mu.Unlock()
	for answered && result == nil && !a.delivered() {
		if a.await() != nil {
			return
		}
	}
}

// end forgets the answering.
func (a *answering) end() {
	a.cancel()
	s := a.board
	s.mu.Lock()
	delete(s.answers, a.key)
	s.mu.Unlock()
	a.Rest()
}

// Rest implements Taker.
func (a *answering) Rest() {
	if !a.resting {
		a.resting = true
		a.board.idle()
	}
}

// delivered reports whether the asker has all pages.
func (a *answering) delivered() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pages.Done()
}

// answer performs the question and sends the answer. The hub is not closed
// meanwhile. If the answer has one page, that page is the result.
func (a *answering) answer(n *note) (result []byte, answered bool) {
	env := &a.board.env
	if !env.Ops.Enter(1) {
		return nil, false
	}
	defer env.Ops.Leave(1)
	var err error
	status := control.StatusLast
	if a.question.Op == control.OpPresence {
		status, err = a.answerPresence()
	} else {
		a.page.Count, err = env.Perform(a.ctx, a.key.Hub, a.question, n.place, a)
	}
	switch {
	case errors.Is(err, ErrNotUnderstood):
		status = control.StatusNotUnderstood
	case err != nil && a.closing(): // its members end
	case err != nil && a.ctx.Err() != nil:
		return nil, false
	case err != nil:
		status = control.StatusFailed
		a.page.Entries = append(a.page.Entries, control.Entry{Data: []byte(err.Error())})
	}
	page, err := a.send(status)
	if err != nil {
		return nil, false
	}
	if a.page.Page == 0 {
		return page, true
	}
	return nil, true
}

// closing reports whether the hub has begun to close.
func (a *answering) closing() bool {
	select {
	case <-a.board.env.Closing:
		return true
	default:
		return false
	}
}

// answerPresence answers a hub that follows a room with presence, and asks who
// is announced on this hub.
func (a *answering) answerPresence() (status control.Status, err error) {
	snapshot := a.board.env.Presence(a.question)
	page := &a.page
	page.Life, page.Seq, page.Digest, page.Mode = snapshot.Life, snapshot.Seq, snapshot.Digest, snapshot.Mode
	page.Count = snapshot.Count
	for i := range snapshot.Entries {
		if err := a.Put(&snapshot.Entries[i]); err != nil {
			return snapshot.Status, err
		}
	}
	return snapshot.Status, nil
}

// maxEntryOverhead is more than the fields of a page take, apart from its
// entries and the list of copies.
const maxEntryOverhead = 64

// Put implements Taker: it adds an entry to the answer.
func (a *answering) Put(e *control.Entry) error {
	size := e.Size()
	if len(a.page.Entries) > 0 && (a.size+size > ask.MaxPage || len(a.page.Entries) == control.MaxEntries) {
		if err := a.Flush(a.page.Count); err != nil {
			return err
		}
	}
	a.page.Entries = append(a.page.Entries, *e)
	a.size += size
	return nil
}

// Flush implements Taker: it sends the page, which is not the last.
func (a *answering) Flush(count uint64) error {
	a.page.Count = count
	_, err := a.send(control.StatusMore)
	a.page.Page++
	a.page.Entries, a.size = a.page.Entries[:0], 0
	return err
}

// send sends the page when the asker has room for it.
func (a *answering) send(status control.Status) (page []byte, err error) {
	for {
		a.mu.Lock()
		if _, ok := a.pages.Next(); ok {
			break
		}
		a.mu.Unlock()
		if err := a.await(); err != nil {
			return nil, err
		}
	}
	a.page.ID, a.page.Status, a.page.Attempt, a.page.Covers = a.key.ID, status, a.attempt, a.copies
	page = a.page.Append(make([]byte, 0, a.size+maxEntryOverhead))
	a.pages.Add(page, status.Final())
	a.mu.Unlock()
	a.transmit(page)
	return page, context.Cause(a.ctx)
}

// transmit sends a page. If that fails the asker asks for it again.
func (a *answering) transmit(page []byte) { _, _ = a.board.transmit(a.ctx, a.key.Hub, page) }

// await waits for news of the asker, and sends pages again that the asker has
// not received.
func (a *answering) await() error {
	if err := a.board.await(a.ctx, a.kick); err != nil {
		return err
	}
	a.mu.Lock()
	again := a.again
	a.again = nil
	a.mu.Unlock()
	for _, page := range again {
		a.transmit(page)
	}
	return nil
}
