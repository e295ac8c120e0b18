// Package linked has lists whose elements hold the links themselves. An element
// needs no allocation to be in a list, and is removed in one step. There are
// millions of them: members of rooms, connections of users.
//
// A list that is long is walked some elements at a time, and may change in
// between. The place of a [Walk] is kept by an element of its own, a mark,
// which everything else passes over:
//
//	List ─▶ e ⇄ d ⇄ c ⇄ mark ⇄ b ⇄ a
//	        └──┬──┘              └─┬─┘
//	      seen: Next         the next ones
//	      has returned them
package linked

// Links are what an element has of a list. The zero value is that of an element
// that is in no list.
type Links[E any] struct{ next, prev *E }

// An Element is a pointer to something that can be in one list at a time.
type Element[E any] interface {
	*E
	// Links returns the links of the element: always the same.
	Links() *Links[E]
	// IsMark reports whether the element only keeps the place of a Walk.
	IsMark() bool
}

// A List has elements. The zero value is empty. It is not safe for concurrent
// use.
type List[E any, P Element[E]] struct{ first *E }

// Empty reports whether the list has no element. Marks count as elements.
func (l *List[E, P]) Empty() bool { return l.first == nil }

// Add puts an element that is in no list at the front.
func (l *List[E, P]) Add(e P) {
	next := l.first
	e.Links().next = next
	if next != nil {
		P(next).Links().prev = e
	}
	l.first = e
}

// Remove takes an element out of the list that it is in.
func (l *List[E, P]) Remove(e P) {
	links := e.Links()
	if links.prev != nil {
		P(links.prev).Links().next = links.next
	} else if l.first == e {
		l.first = links.next
	}
	if links.next != nil {
		P(links.next).Links().prev = links.prev
	}
	*links = Links[E]{}
}

// All calls yield for each element, from the front, until it returns false. The
// list does not change meanwhile.
func (l *List[E, P]) All(yield func(P) bool) {
	for e := P(l.first); e != nil; e = e.Links().next {
		if !e.IsMark() && !yield(e) {
			return
		}
	}
}

// Walk begins a walk over the list, whose place is kept by a mark that is in no
// list.
func (l *List[E, P]) Walk(mark P) Walk[E, P] { return Walk[E, P]{list: l, mark: mark} }

// A Walk goes over a list that may change between its steps. An element that
// stays in the list during the whole walk is seen once. Elements that are added
// after the first step are not seen.
type Walk[E any, P Element[E]] struct {
	list  *List[E, P]
	mark  P
	begun bool
	on    bool // the mark is in the list: the walk is not over
}

// Next appends the next elements to buf, up to its capacity, which must have
// room for at least one. If room is left, the walk is over.
func (w *Walk[E, P]) Next(buf []P) []P {
	at := P(w.list.first)
	if w.begun {
		at = w.mark.Links().next // nil if the walk is over
		w.End()
	}
	w.begun = true
	var last P
	for ; at != nil && len(buf) < cap(buf); at = at.Links().next {
		if last = at; !at.IsMark() {
			buf = append(buf, at)
		}
	}
	if at == nil {
		return buf
	}
	w.on = true
	before, mark := last.Links(), w.mark.Links()
	mark.prev, mark.next = last, at
	before.next, at.Links().prev = w.mark, w.mark
	return buf
}

// End takes the mark out of the list. A walk that is over has done so.
func (w *Walk[E, P]) End() {
	if w.on {
		w.on = false
		w.list.Remove(w.mark)
	}
}
