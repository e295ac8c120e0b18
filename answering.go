package fanout

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
	hub      *Hub
	key      ask.Key
	question *control.Question
	ctx      context.Context
	cancel   context.CancelFunc
	kick     chan struct{} // capacity 1: something below has changed

	page control.Answer // being filled
	size int            // of its entries

	resting bool // it has given up its place among those that are busy

	mu      locks.Mutex[locks.Innermost] // guards all below
	pages   *ask.Pages
	again   [][]byte // pages to be sent again
	attempt uint64   // of the latest copy
	copies  []uint64
}

// newAnswering returns the answering of a question that its asker waits for as
// long as wait.
func newAnswering(h *Hub, key ask.Key, q *control.Question, copies []uint64, wait time.Duration) *answering {
	a := &answering{
		hub: h, key: key, question: q, kick: make(chan struct{}, 1),
		pages: ask.NewPages(max(q.Credit, 1)), attempt: q.Attempt, copies: copies,
	}
	a.ctx, a.cancel = context.WithTimeout(h.ctx, wait)
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
	s := &a.hub.switchboard
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
	s := &a.hub.switchboard
	s.mu.Lock()
	delete(s.answers, a.key)
	s.mu.Unlock()
	a.rest()
}

// rest makes the hub free for another question, while members that have got
// this one think.
func (a *answering) rest() {
	if !a.resting {
		a.resting = true
		a.hub.switchboard.idle()
	}
}

// delivered reports whether the asker has all pages.
func (a *answering) delivered() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pages.Done()
}

// answer deals with the question and sends the answer. The hub is not closed
// meanwhile. If the answer is one page it is the result.
func (a *answering) answer(n *note) (result []byte, answered bool) {
	if a.hub.begin(1) != nil {
		return nil, false
	}
	defer a.hub.ops.Leave(1)
	places := make(map[*roomState]uint64)
	if n.room != nil {
		places[n.room] = n.place
	}
	var err error
	status := control.StatusLast
	if a.question.Op == control.OpPresence {
		status, err = a.answerPresence()
	} else {
		a.page.Count, err = a.hub.perform(a.ctx, a.key.Hub, a.question, places, a)
	}
	switch {
	case errors.Is(err, errNotUnderstood):
		status = control.StatusNotUnderstood
	case err != nil && a.hub.isClosing(): // its members end
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

// maxEntryOverhead is more than the fields of a page take beside its entries,
// but for the list of copies.
const maxEntryOverhead = 64

// put adds an entry to the answer.
func (a *answering) put(e *control.Entry) error {
	size := e.Size()
	if len(a.page.Entries) > 0 && (a.size+size > ask.MaxPage || len(a.page.Entries) == control.MaxEntries) {
		if err := a.flush(a.page.Count); err != nil {
			return err
		}
	}
	a.page.Entries = append(a.page.Entries, *e)
	a.size += size
	return nil
}

// flush sends the page, which is not the last.
func (a *answering) flush(count uint64) error {
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
func (a *answering) transmit(page []byte) {
	h := a.hub
	if a.key.Hub == h.num {
		h.switchboard.put(note{from: h.num, payload: page})
		return
	}
	o := h.wayTo(hubID(a.key.Hub))
	defer o.unhold(1)
	_, _ = o.notify(a.ctx, h.controlFrame(page))
}

// await waits for news of the asker, and sends again what it has not got.
func (a *answering) await() error {
	select {
	case <-a.kick:
	case <-a.ctx.Done():
		return context.Cause(a.ctx)
	case <-a.hub.closing:
		return ErrClosed
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
