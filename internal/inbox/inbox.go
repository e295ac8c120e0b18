// Package inbox keeps what a hub knows of its inbox, the channel in which
// direct messages come: their numbers, whether some may be missing, and which
// messages of its own the hub waits for.
package inbox

import (
	"slices"
	"time"

	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/sequence"
	"github.com/fanoutgo/fanout/internal/wire"
)

// An Inbox is that of one hub. The zero value is one that nothing has come to.
// Its methods may be called concurrently.
type Inbox struct {
	mu          locks.Mutex[locks.Innermost] // guards all below
	in          sequence.Tracker
	interrupted bool
	used        bool            // a direct message of another hub has come
	echoes      []chan struct{} // closed when the next frame of our own arrives
}

// Accept takes the numbers of a frame, of this hub (own) or another one. It
// reports whether messages may be missing before it that Restored has not
// reported.
func (b *Inbox) Accept(head *wire.Header, own bool) (v sequence.Verdict, lost bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v = b.in.Accept(head)
	if own {
		for _, c := range b.echoes {
			close(c)
		}
		b.echoes = nil
	} else {
		b.used = true
	}
	// What was missed before this run was reported when the run began.
	return v, v.Missed > 0 || v.Unknown || b.interrupted
}

// Interrupted notes that frames may be missing from here on.
func (b *Inbox) Interrupted() {
	b.mu.Lock()
	b.interrupted = true
	b.mu.Unlock()
}

// Restored notes that an interruption is over. It reports whether direct
// messages may be missing: programs that use none are not told of links that
// broke.
func (b *Inbox) Restored() (lost bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.interrupted = false
	b.in.BeginRun(time.Now())
	return b.used
}

// Echo returns a channel that is closed when the next frame of this hub
// arrives. The caller gives it to Forget.
func (b *Inbox) Echo() <-chan struct{} {
	arrived := make(chan struct{})
	b.mu.Lock()
	b.echoes = append(b.echoes, arrived)
	b.mu.Unlock()
	return arrived
}

// Forget forgets a channel that Echo has returned.
func (b *Inbox) Forget(echo <-chan struct{}) {
	b.mu.Lock()
	b.echoes = slices.DeleteFunc(b.echoes, func(c chan struct{}) bool { return c == echo })
	b.mu.Unlock()
}
