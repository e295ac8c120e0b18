// Package deadline bounds the time of operations without a timer for each.
//
// context.WithTimeout costs some allocations, a timer and a lock of the parent
// for every operation. When hundreds of thousands of operations a second all
// have the same time limit, nearly none of them reaches it. So operations
// without a context of their own share one with all that begin within a short
// time, and a caller's context gets a timer only when its Done is called.
package deadline

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// A Group makes contexts that end after a time, or with a parent. Its methods
// may be called concurrently.
type Group struct {
	parent context.Context
	after  time.Duration
	cause  error

	current atomic.Pointer[shared]
	mu      sync.Mutex // held to replace current
}

// share is the part of its time for which a shared context is given to callers:
// the last one that gets it has that much less time.
const share = 8

// shared is a context that many callers use, so none of them cancels it.
type shared struct {
	context.Context
	cancel context.CancelFunc
	fresh  time.Time // until when it is given to callers
	ends   time.Time
}

// NewGroup returns a group whose contexts end when the parent does, or with a
// cause when their time is over: at the latest after the given time, and at the
// earliest an eighth of it before that.
func NewGroup(parent context.Context, after time.Duration, cause error) *Group {
	return &Group{parent: parent, after: after, cause: cause}
}

// Bound returns a context that ends when ctx does, or when the group's contexts
// do. The caller releases the Hold when it no longer needs the context.
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

// A Hold owns the timer of a context that Bound has returned. The zero Hold
// owns none.
type Hold struct{ of *lazy }

// Release ends the context, unless it is a shared one.
func (h Hold) Release() {
	if h.of != nil {
		h.of.release()
	}
}

// Shared reports whether a context belongs to a group, so that no caller
// cancels it, and lasts at least for a time.
func Shared(ctx context.Context, atLeast time.Duration) bool {
	s, ok := ctx.(*shared)
	return ok && (atLeast <= 0 || time.Until(s.ends) >= atLeast)
}

// Waive returns the context that Bound was called with to make ctx, if that has
// at least about the given time left (it may be an eighth less). It is for
// operations that end by themselves within that time. Otherwise Waive returns
// ctx.
func Waive(ctx context.Context, atLeast time.Duration) context.Context {
	if l, ok := ctx.(*lazy); ok && time.Until(l.ends) >= atLeast-atLeast/share {
		return l.parent
	}
	return ctx
}

// Context returns a shared context.
func (g *Group) Context() context.Context {
	now := time.Now()
	if s := g.current.Load(); s != nil && now.Before(s.fresh) && s.Err() == nil {
		return s
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.current.Load(); s != nil && now.Before(s.fresh) && s.Err() == nil {
		return s // another caller was faster
	}
	s := &shared{fresh: now.Add(g.after / share), ends: now.Add(g.after)}
	s.Context, s.cancel = context.WithDeadlineCause(g.parent, s.ends, g.cause)
	g.current.Store(s)
	return s
}

// lazy is a context with a deadline that gets a timer when Done is first
// called.
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
		<-l.Done() // from now on the context with the timer decides
		return l.enforce().Err()
	}
	return nil
}

// Value implements context.Context. The standard library asks for keys of its
// own to learn of the end of a context, so the context with the timer answers.
func (l *lazy) Value(key any) any { return l.enforce().Value(key) }
