// Package locks has mutexes that check themselves in test builds. In ordinary
// builds they are those of package sync and cost nothing more.
//
// A method that needs a lock held says so with its first statement:
//
//	func (r *room) open(ms *membership) {
//		r.mu.AssertHeld()
//		...
//
// With the build tag lockcheck AssertHeld panics unless the calling goroutine
// holds the lock, and Lock panics if the goroutine holds a lock that comes
// later in the order, or one of the same rank. The order is that of the ranks,
// which docs/ARCHITECTURE.md lists:
//
//	go test -tags lockcheck .
package locks

// A Rank is the place of a mutex in the order in which locks are taken: a
// goroutine takes locks of ever greater rank. It is a type without size, given
// as a type parameter, so that a mutex does not grow by it.
type Rank interface {
	// Rank returns the place in the order and the lock's name.
	Rank() (place int, name string)
}
