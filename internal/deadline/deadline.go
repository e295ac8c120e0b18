// Package deadline bounds operations in time without a timer for each.
//
// context.WithTimeout costs some allocations, a timer, and a lock of the parent's,
// for every operation. Of hundreds of thousands a second that all get the same
// time nearly none ever ends that way. So who has no will of its own shares a
// context with all who begin within a short while; and a context of a caller's is
// only given a timer when somebody asks for its Done.
package deadline

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// A Group hands out contexts that end after a time, or with a parent. Its methods
// may be called by anyone.
type Group struct {
	parent context.Context
	after  time.Duration
	cause  error

	current atomic.Pointer[shared]
	mu      sync.Mutex // held to replace current
}

// share is the part of its time for which a context is handed out: who is the last
// to get it has that much less.
const share = 8

// shared is a context that many use. It is nobody's to cancel.
type shared struct {
	context.Context
	cancel context.CancelFunc
	fresh  time.Time // until when it is handed out
	ends   time.Time
}

// NewGroup returns a group whose contexts end with the parent, and otherwise with
// a cause after the time given at the latest, and an eighth of it earlier at the
// earliest.
func NewGroup(parent context.Context, after time.Duration, cause error) *Group {
	return &Group{parent: parent, after: after, cause: cause}
}

// Bound returns a context that ends when ctx does, or as those of the group. The
// caller releases it when it needs it no longer.
func (g *Group) Bound(ctx context.Context) (context.Context, Hold) {
	if theirs, ok := ctx.(*shared); ok {
		ours := g.Context()
		if end, _ := ours.Deadline(); theirs.ends.Before(end) {
			return theirs, Hold{}
		}
		return ours, Hold{}
	}
	if ctx == context.Background() {
		return g.Context(), Hold{}
	}
	l := &lazy{parent: ctx, group: g, ends: time.Now().Add(g.after)}
	return l, Hold{l}
}

// A Hold is a claim to the timer of a context that Bound has returned. The zero Hold
// is none.
type Hold struct{ of *lazy }

// Release ends the context, if that is nobody else's too.
func (h Hold) Release() {
	if h.of != nil {
		h.of.release()
	}
}

// Shared reports whether a context is a group's, so that nobody cancels it for
// reasons of his own, and lasts so much longer.
func Shared(ctx context.Context, atLeast time.Duration) bool {
	s, ok := ctx.(*shared)
	return ok && (atLeast <= 0 || time.Until(s.ends) >= atLeast)
}

// Waive returns the context that one was made of by a group's Bound, if that has
// about so much time left, an eighth less at least: for those who see themselves to
// it that they end earlier. Otherwise it returns ctx.
func Waive(ctx context.Context, atLeast time.Duration) context.Context {
	if l, ok := ctx.(*lazy); ok && time.Until(l.ends) >= atLeast-atLeast/share {
		return l.parent
	}
	return ctx
}

// Context returns a context that is shared.
func (g *Group) Context() context.Context {
	now := time.Now()
	if s := g.current.Load(); s != nil && now.Before(s.fresh) && s.Err() == nil {
		return s
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.current.Load(); s != nil && now.Before(s.fresh) && s.Err() == nil {
		return s // somebody was faster
	}
	s := &shared{fresh: now.Add(g.after / share), ends: now.Add(g.after)}
	s.Context, s.cancel = context.WithDeadlineCause(g.parent, s.ends, g.cause)
	g.current.Store(s)
	return s
}

// lazy is a context with a deadline that has no timer before somebody asks for
// Done.
type lazy struct {
	parent context.Context
	group  *Group
	ends   time.Time

	mu       sync.Mutex // guards all below
	real     context.Context
	cancel   func()
	released bool
}

func (l *lazy) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.released = true
	if l.cancel != nil {
		l.cancel()
	}
}

// enforce returns the context with a timer.
func (l *lazy) enforce() context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.real == nil {
		ctx, end := context.WithCancelCause(l.parent)
		ctx, cancel := context.WithDeadlineCause(ctx, l.ends, l.group.cause)
		stop := context.AfterFunc(l.group.parent, func() { end(context.Cause(l.group.parent)) })
		l.real, l.cancel = ctx, func() { stop(); cancel(); end(nil) }
		if l.released {
			l.cancel()
		}
	}
	return l.real
}

// Deadline implements context.Context.
func (l *lazy) Deadline() (time.Time, bool) {
	if end, ok := l.parent.Deadline(); ok && end.Before(l.ends) {
		return end, true
	}
	return l.ends, true
}

// Done implements context.Context.
func (l *lazy) Done() <-chan struct{} { return l.enforce().Done() }

// Err implements context.Context.
func (l *lazy) Err() error {
	l.mu.Lock()
	timed := l.real
	l.mu.Unlock()
	switch {
	case timed != nil:
		return timed.Err()
	case l.parent.Err() != nil, l.group.parent.Err() != nil, !time.Now().Before(l.ends):
		<-l.Done() // from now on it is what the one with a timer says
		return l.enforce().Err()
	}
	return nil
}

// Value implements context.Context. The standard library asks for its own keys, to
// learn of the end of a context: of the one with a timer.
func (l *lazy) Value(key any) any { return l.enforce().Value(key) }
