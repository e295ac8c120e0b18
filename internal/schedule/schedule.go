// Package schedule calls a function for things when they are due.
package schedule

import (
	"container/heap"
	"context"
	"time"

	"github.com/fanoutgo/fanout/internal/locks"
)

// A Schedule has things, each with the time at which it is due. One goroutine,
// Run, makes all calls. The zero value is not usable: see Init. All methods but
// Init may be called concurrently, but Run only once.
type Schedule[T comparable] struct {
	kick chan struct{} // capacity 1: something is due earlier

	mu    locks.Mutex[locks.Innermost] // guards all below
	due   map[T]time.Time
	queue queue[T] // may have entries that are out of date; due has the valid times
}

// Init makes s, which is zero, an empty schedule.
func (s *Schedule[T]) Init() {
	s.kick, s.due = make(chan struct{}, 1), make(map[T]time.Time)
}

// At schedules a thing for a time. If the thing is in the schedule already,
// with an earlier time, that time stays.
func (s *Schedule[T]) At(thing T, at time.Time) {
	s.mu.Lock()
	old, some := s.due[thing]
	first := false
	if !some || at.Before(old) {
		s.due[thing] = at
		heap.Push(&s.queue, entry[T]{at, thing})
		first = s.queue[0].thing == thing
	}
	s.mu.Unlock()
	if first {
		select {
		case s.kick <- struct{}{}:
		default:
		}
	}
}

// Run calls f for each thing that is due, which is not in the schedule then,
// until ctx ends.
func (s *Schedule[T]) Run(ctx context.Context, f func(T, time.Time)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		now := time.Now()
		thing, at, ok := s.next(now)
		switch {
		case ok:
			f(thing, now)
			continue
		case at.IsZero():
			timer.Stop()
		default:
			timer.Reset(time.Until(at))
		}
		select {
		case <-timer.C:
		case <-s.kick:
		case <-ctx.Done():
		}
	}
}

// next takes a thing that is due. If there is none it returns when one will be;
// zero: none will.
func (s *Schedule[T]) next(now time.Time) (thing T, at time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) > 0 {
		first := s.queue[0]
		due, some := s.due[first.thing]
		switch {
		case !some || !due.Equal(first.at): // it is out of date
			heap.Pop(&s.queue)
		case now.Before(due):
			return thing, due, false
		default:
			heap.Pop(&s.queue)
			delete(s.due, first.thing)
			return first.thing, due, true
		}
	}
	s.queue = nil
	return thing, at, false
}

// A queue is a heap of things by their times.
type queue[T comparable] []entry[T]

type entry[T comparable] struct {
	at    time.Time
	thing T
}

func (q queue[T]) Len() int           { return len(q) }
func (q queue[T]) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q queue[T]) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *queue[T]) Push(x any)        { *q = append(*q, x.(entry[T])) }

func (q *queue[T]) Pop() any {
	old := *q
	last := old[len(old)-1]
	old[len(old)-1] = entry[T]{}
	*q = old[:len(old)-1]
	return last
}
