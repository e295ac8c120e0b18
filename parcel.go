package fanout

import (
	"context"
	"slices"
	"time"

	"github.com/fanoutgo/fanout/internal/wire"
)

// A parcel is messages to one channel that travel together, as one frame. They are
// written where they will be sent from, so that nobody needs to keep what their
// publishers gave. Until the parcel has begun outbound.mu guards it; then it is its
// sender's, but for waiting and cancel.
type parcel struct {
	frame   []byte // room for a header, then the messages; once sealed, the frame
	count   int    // of messages
	gone    []span // messages whose publishers have left again
	begun   bool   // it is being sent: nobody joins or leaves any more
	waiting int    // publishers that wait for done

	ends time.Time   // of the first who does not wait: when it is given up; zero if there is none
	head wire.Header // set by outbound.seal, like at
	at   time.Time
	done chan struct{} // closed when err is set; nil: nobody waits
	err  error
	acks []ack  // publishers that do not wait
	one  [1]ack // room for the first of them

	cancel context.CancelFunc // nil: what is under way is not to be ended
}

// A span is a place in a frame.
type span struct{ from, to int }

// newParcel returns a parcel with room for so many bytes of messages.
func newParcel(size int) *parcel {
	return &parcel{frame: make([]byte, wire.Overhead, wire.Overhead+size)}
}

// addAsync is add for a publisher that does not wait for longer than a timeout.
func (p *parcel) addAsync(m *wire.Message, a ack, timeout time.Duration) {
	p.add(m)
	if p.acks == nil {
		p.acks = p.one[:0]
		p.ends = time.Now().Add(timeout)
	}
	p.acks = append(p.acks, a)
}

// add writes a message, and returns its place.
func (p *parcel) add(m *wire.Message) span {
	from := len(p.frame)
	p.frame = wire.AppendMessage(p.frame, m)
	p.count++
	return span{from, len(p.frame)}
}

// fits reports whether a message of so many bytes may join others.
func (p *parcel) fits(size int) bool {
	return len(p.frame)-wire.Overhead+size <= maxFrame
}

// withdraw takes a message out again. Nothing is moved before the parcel is sent:
// others know the places of theirs.
func (p *parcel) withdraw(at span) {
	p.gone = append(p.gone, at)
	if p.count--; p.count == 0 { // there are no others
		p.frame, p.gone = make([]byte, wire.Overhead), nil
	}
}

// close takes out what was withdrawn. Nothing is added after it.
func (p *parcel) close() {
	slices.SortFunc(p.gone, func(a, b span) int { return b.from - a.from })
	for _, s := range p.gone {
		p.frame = slices.Delete(p.frame, s.from, s.to)
	}
	p.gone = nil
}

// expired reports whether it is too late to send the parcel.
func (p *parcel) expired() bool { return !p.ends.IsZero() && !time.Now().Before(p.ends) }

// abandoned reports whether nobody wants to know any more. outbound.mu is held.
func (p *parcel) abandoned() bool { return p.waiting == 0 && len(p.acks) == 0 }

// seal writes the header in front of the messages.
func (p *parcel) seal(head wire.Header) {
	p.at = time.Now()
	head.Time = millis(p.at)
	var room [wire.Overhead]byte
	h := wire.AppendHeader(room[:0], &head)
	p.head = head
	p.frame = p.frame[wire.Overhead-len(h):]
	copy(p.frame, h)
}
