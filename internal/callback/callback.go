// Package callback calls users' functions one at a time and in order, on a
// goroutine that exists while there is something to call. Adding a call never
// waits, so a slow function delays only other functions of the same queue.
package callback

import "sync"

// A Queue calls Call for everything that is added to it. Set Call and Go before
// the first Add. Add may be called concurrently, also by functions that the
// queue calls.
type Queue[T, V any] struct {
	// Call is called with each receiver and the value that it was added with.
	Call func(T, V)
	// Go starts a goroutine that the queue's owner waits for.
	Go func(func())

	mu      sync.Mutex // guards the next two
	queue   []batch[T, V]
	running bool

	now []batch[T, V] // the batch that the goroutine is calling
}

type batch[T, V any] struct {
	to    []T
	value V
}

// Add makes the queue call Call with value for each of to, after everything
// that was added before. The queue keeps to.
func (q *Queue[T, V]) Add(to []T, value V) {
	q.mu.Lock()
	q.queue = append(q.queue, batch[T, V]{to, value})
	start := !q.running
	q.running = true
	q.mu.Unlock()
	if start {
		q.Go(q.run)
	}
}

func (q *Queue[T, V]) run() {
	for {
		for ; len(q.now) > 0; q.now = q.now[1:] {
			for b := &q.now[0]; len(b.to) > 0; {
				one := b.to[0]
				b.to = b.to[1:]
				q.call(one, b.value)
			}
		}
		if !q.more() {
			return
		}
		q.mu.Lock()
		q.now, q.queue = q.queue, nil
		q.mu.Unlock()
	}
}

// call makes one call. If the call ends the goroutine (by runtime.Goexit, as a
// failing test does, or by a panic that is recovered) another one continues.
func (q *Queue[T, V]) call(to T, value V) {
	returned := false
	defer func() {
		if !returned && q.more() {
			q.Go(q.run)
		}
	}()
	q.Call(to, value)
	returned = true
}

// more reports whether there is more to call. If not, the goroutine ends.
func (q *Queue[T, V]) more() bool {
	for _, b := range q.now {
		if len(b.to) > 0 {
			return true
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) > 0 {
		return true
	}
	q.running = false
	return false
}
