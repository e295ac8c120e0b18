package follow

import (
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/history"
	"github.com/fanoutgo/fanout/internal/roomlog"
	"github.com/fanoutgo/fanout/internal/sequence"
)

// place returns what goes into the log if the frame is the next one, or came
// before. It is not placed if something is missing before it. With compares, it
// need not be placed either if it contradicts the position of the log: then the
// history is read.
func (f *Follower[B]) place(b *Frame[B], now time.Time, compares bool) (a Append, placed bool) {
	switch {
	case b.At.IsZero():
		return f.unkept(b), true
	case !f.Known():
		return a, false
	case f.state == Blind:
		f.state = Live
		f.pos = b.before()
		a.restart(f.pos)
	case f.pos.IsZero() && b.First == 1: // nothing was ever published before it
		f.pos.Epoch = b.At.Epoch
		a.restart(f.pos)
	case b.At.Epoch < f.pos.Epoch:
		if _, past := history.LastOf(f.before, b.At.Epoch); !past && compares && f.compare(now) {
			return a, false
		}
		return f.pastEpoch(b), true
	case b.At.Epoch == f.pos.Epoch && b.At.Offset <= f.pos.Offset:
		if b.hubs() && !f.numbers.Accounted(&b.Header) && compares && f.compare(now) {
			return a, false
		}
		return f.pass(b), true
	case b.At.Epoch > f.pos.Epoch || b.First-1 > f.pos.Offset:
		return a, false
	}
	return f.follow(a, b), true
}

// unkept takes a frame that the history does not have. Only its numbers show
// what is missing before it.
func (f *Follower[B]) unkept(b *Frame[B]) Append {
	a := Append{Messages: true}
	if !b.hubs() {
		f.numbers.AcceptStranger()
		return a
	}
	v := f.numbers.AcceptUnkept(&b.Header, &f.trimmed)
	a.Skip, a.Sender, a.Repeated = v.Skip, v.Sender, v.Repeated
	f.count(&a, &v)
	return a
}

// follow takes the next frame, and returns a with it. The last position is
// before the frame or in it.
func (f *Follower[B]) follow(a Append, b *Frame[B]) Append {
	overlap := 0
	if b.First <= f.pos.Offset {
		overlap = int(min(uint64(b.Messages), f.pos.Offset-b.First+1))
	}
	a.Messages, a.Skip, a.Positions = true, overlap, true
	if b.hubs() {
		v := f.numbers.AcceptNext(&b.Header, overlap, &f.trimmed)
		f.count(&a, &v)
		// Messages that members have had before, at another place, are only for
		// members that resume.
		a.Had, a.Sender = v.Skip-overlap, v.Sender
		a.Repeated = max(0, v.Repeated-overlap)
	}
	a.Gap.Unknown = a.Gap.Unknown || b.Unreadable
	if !a.Gap.IsZero() || !a.Earlier.IsZero() {
		a.restart(adapter.Position{Epoch: b.At.Epoch, Offset: b.First - 1 + uint64(overlap)})
	}
	f.pos = b.At
	return a
}

// count adds to a the messages that are missing by a frame's numbers.
func (f *Follower[B]) count(a *Append, v *sequence.Verdict) {
	if v.Earlier > 0 {
		a.Earlier = roomlog.Gap{Missed: v.Earlier, From: v.From, Until: f.numbers.Run()}
	}
	a.Gap.Missed += v.Missed
	a.Gap.Unknown = a.Gap.Unknown || v.Unknown
}

// pass takes a frame whose place in the order the log has passed, so it came
// before. If its numbers say that it did not, a forged frame has taken its
// place, and its messages are missing.
func (f *Follower[B]) pass(b *Frame[B]) (a Append) {
	if !b.hubs() {
		a.Repeated = b.Messages
		return a
	}
	v := f.numbers.AcceptLate(&b.Header, b.Header.Count, &f.trimmed)
	a.Repeated = v.Repeated
	if b.At.Epoch == f.began.Epoch && b.At.Offset <= f.began.Offset {
		return a // it was under way when the room was subscribed
	}
	f.count(&a, &v)
	return a
}

// pastEpoch takes a frame of an epoch that is over. If it did not come before,
// it is not in the history: a server that has been replaced has taken it. It is
// not known yet whether its messages are missing, since the publisher may send
// them again: then they have a place in the history.
func (f *Follower[B]) pastEpoch(b *Frame[B]) (a Append) {
	if last, ok := history.LastOf(f.before, b.At.Epoch); ok && b.At.Offset <= last {
		return f.pass(b)
	}
	if !b.hubs() {
		return a
	}
	v := f.numbers.AcceptTaken(&b.Header, &f.trimmed)
	f.count(&a, &v)
	if !a.Gap.IsZero() || !a.Earlier.IsZero() {
		a.restart(f.pos)
	}
	return a
}

// unplaced takes a frame whose position the history does not have. Messages
// that were published before it may be missing, and the next numbers of their
// publishers will show it. The position of the log does not change.
func (f *Follower[B]) unplaced(b *Frame[B], now time.Time) (a Append) {
	d, unknown := f.doubt(), b.Unreadable
	if d.beside != b.before() {
		unknown = true
		f.numbers.BeginRun(now)
	}
	d.beside = b.At
	if b.hubs() {
		v := f.numbers.AcceptBeside(&b.Header, &f.trimmed)
		a.Repeated = v.Repeated
		if v.Repeated == b.Messages {
			return a
		}
		f.count(&a, &v)
		a.Skip, a.Sender = v.Skip, v.Sender
	}
	a.Gap.Unknown = a.Gap.Unknown || unknown
	a.Messages = true // without positions
	return a
}

// compare reports whether to read the history because of a frame from before
// the position of the log that did not come before. The frame may be from a
// server that has been replaced. Or the position of the log is wrong: it was
// forged, or the history is gone and its server's clock was set back.
func (f *Follower[B]) compare(now time.Time) bool {
	d := f.doubt()
	if !d.comparedAt.IsZero() && now.Sub(d.comparedAt) < compareEvery {
		return false
	}
	d.comparedAt = now
	return true
}
