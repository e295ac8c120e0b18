package replay

import "github.com/fanoutgo/fanout/adapter"

// A Request is what a member asks for: the messages after a position.
type Request[E Item] struct {
	at    adapter.Position
	begun bool // a reading that has begun since may serve it
	next  bool // the next reading begins at it

	// Done belongs to the owner, which waits there for Page or Err.
	Done chan struct{}
	Page *Page[E]
	Err  error
}

// Readings are the requests of members for a room's history, the oldest first.
// One reading at a time serves as many requests as it can. The oldest is served
// after two readings at the latest.
type Readings[E Item] struct {
	list    []*Request[E]
	reading bool // somebody serves them
}

// Join asks for what comes after a position.
func (q *Readings[E]) Join(at adapter.Position) *Request[E] {
	r := &Request[E]{at: at}
	q.list = append(q.list, r)
	return r
}

// Leave forgets a request whose caller has stopped waiting.
func (q *Readings[E]) Leave(r *Request[E]) {
	for i := range q.list {
		if q.list[i] == r {
			q.list = append(q.list[:i:i], q.list[i+1:]...)
			return
		}
	}
}

// Waiting reports whether there are requests.
func (q *Readings[E]) Waiting() bool { return len(q.list) > 0 }

// Start reports whether a reading is to begin: there are requests, and none is
// under way. If so, the caller begins one, and calls Begin.
func (q *Readings[E]) Start() bool {
	if q.reading || !q.Waiting() {
		return false
	}
	q.reading = true
	return true
}

// Begin returns the position after which to read. It is not ok if there is no
// request: then the reading has ended. With whole, the history is so short that
// it is read from its beginning.
func (q *Readings[E]) Begin(whole bool) (since adapter.Position, ok bool) {
	if !q.Waiting() {
		q.reading = false
		return since, false
	}
	oldest := q.list[0]
	since = oldest.at
	if !oldest.next { // a reading that begins a little earlier may serve it, too
		for _, r := range q.list {
			if r.at.Before(since) && r.at.Epoch == oldest.at.Epoch && r.at.Offset+PageMessages/2 > oldest.at.Offset {
				since = r.at
			}
		}
		if whole {
			since = adapter.Position{}
		}
	}
	oldest.next = true
	for _, r := range q.list {
		r.begun = true
	}
	return since, true
}

// Deliver ends a reading, and returns the requests that its page serves.
func (q *Readings[E]) Deliver(p *Page[E]) []*Request[E] {
	return q.end(func(r *Request[E]) bool {
		if !p.covers(r.at) || !r.begun && !r.at.Before(p.end) { // then it may be too old for r
			return false
		}
		r.Page = p
		return true
	})
}

// Fail ends a reading, and returns all requests, with an error.
func (q *Readings[E]) Fail(err error) []*Request[E] {
	return q.end(func(r *Request[E]) bool { r.Err = err; return true })
}

func (q *Readings[E]) end(serves func(*Request[E]) bool) (served []*Request[E]) {
	q.reading = false
	left := q.list[:0:0]
	for _, r := range q.list {
		if serves(r) {
			served = append(served, r)
		} else {
			left = append(left, r)
		}
	}
	q.list = left
	return served
}
