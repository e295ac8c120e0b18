// Package notify tells goroutines that something guarded by a lock has changed.
// It costs a nil channel while no goroutine waits. (A sync.Cond cannot be
// waited for together with a context.)
//
//	mu.Lock()
//	for !ready {
//		changed := n.Wait()
//		mu.Unlock()
//		select {
//		case <-changed:
//		case <-ctx.Done():
//			return
//		}
//		mu.Lock()
//	}
package notify

// A Notifier wakes all goroutines that wait. The zero value is ready to use.
// The owner's lock guards it: both methods must be called with that lock held.
type Notifier struct{ changed chan struct{} }

// Wait returns a channel that the next Notify closes.
func (n *Notifier) Wait() <-chan struct{} {
	if n.changed == nil {
		n.changed = make(chan struct{})
	}
	return n.changed
}

// Notify wakes all that wait now.
func (n *Notifier) Notify() {
	if n.changed != nil {
		close(n.changed)
		n.changed = nil
	}
}
