package fanout

import (
	"errors"
	"slices"
	"sync"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/outbox"
	"github.com/fanoutgo/fanout/internal/roomlog"
	"github.com/fanoutgo/fanout/internal/wire"
)

// A batch is a frame on its way into a log: it has been checked, and is decoded
// when it gets there. Until then it takes no more than its bytes. The zero batch
// holds nothing.
type batch struct {
	head    wire.Header // Count 0: not a hub's
	body    wire.Decoder
	size    int    // of the frame
	foreign []byte // a stranger's payload, not nil if it is one
}

// open checks a frame, and makes b, which is zero, the batch of its messages. It
// stays zero after an error. A stranger's payload is a batch of one message.
func (b *batch) open(frame []byte) error {
	head, body, err := wire.Decode(frame)
	switch {
	case err == nil:
		b.head, b.body, b.size = head, body, len(frame)
	case errors.Is(err, wire.ErrForeign):
		b.foreign, b.size = frame, len(frame)
		if frame == nil {
			b.foreign = []byte{}
		}
		return nil
	}
	return err
}

// count returns the number of messages.
func (b *batch) count() int {
	if b.foreign != nil {
		return 1
	}
	return b.head.Count
}

// An unpacker makes entries of the messages of a batch.
type unpacker struct {
	left    int // messages
	sender  string
	at      adapter.Position // of the message that was read last; zero: they have none
	foreign []byte
	body    wire.Decoder
	view    wire.View // the message that was read last
	hub     uint64    // that published the batch
	filters item.Maker
	holes   hole // that were read last, and are not in a log yet

	// Data that shares the frame's bytes keeps all of the frame alive. It does if
	// it has at least shares bytes.
	shares int
	block  []byte // room for other data
}

// A hole is messages that cannot be delivered because they have a field that has
// to be understood, and that this release does not know. They have numbers and
// positions like others, and count as missing.
type hole struct {
	count int
	field uint32           // of the last
	at    adapter.Position // of the last
}

// unpack makes u, which is zero, the unpacker of what comes after the first skip
// messages.
func (b *batch) unpack(u *unpacker, h *Hub, skip int, sender string) {
	u.left, u.sender, u.foreign, u.body, u.hub, u.shares = b.count(), sender, b.foreign, b.body, b.head.Hub, b.shares()
	u.filters.Home = &h.home
	if skip > 0 {
		u.passOver(skip)
		u.takeHole() // it was told of before
	}
}

// slack is how many bytes a frame may have besides twice its data, if all data is
// to share it.
const slack = 512

// shares returns the least length of data that shares the frame's bytes. A frame
// as a hub sends it is shared by all of its messages: few of its bytes are not
// data, and it is no larger than what a hub gathers.
func (b *batch) shares() int {
	ofHub := b.count() <= 1 || b.size <= outbox.MaxFrame+wire.Overhead
	if b.foreign != nil || ofHub && b.size <= 2*b.body.Data()+slack {
		return 0
	}
	return (b.size + 1) / 2
}

// read reads the next message into u.view, and is false at the end.
func (u *unpacker) read() bool {
	if u.left == 0 {
		return false
	}
	u.left--
	if !u.at.IsZero() {
		u.at.Offset++
	}
	if u.foreign != nil {
		u.view = wire.View{Data: u.foreign}
		return true
	}
	return u.body.Next(&u.view)
}

// entry makes an entry of the message that was read last.
func (u *unpacker) entry() (e item.Entry) {
	u.write(&e)
	return e
}

func (u *unpacker) write(e *item.Entry) {
	e.Data, e.Sender, e.At, e.Volatile = u.view.Data, u.sender, u.at, u.view.Volatile
	if u.shares > 0 || len(e.Data) == 0 {
		e.Data = u.copied()
	}
	e.Filter = u.filters.Make(u.hub, &u.view)
}

// passOver reads the next n messages, makes nothing of them, and returns how many
// of them count.
func (u *unpacker) passOver(n int) (counting int) {
	for ; n > 0 && u.read(); n-- {
		if u.unreadable() || !u.view.Volatile {
			counting++
		}
	}
	return counting
}

// unreadable reports whether the message that was read last cannot be delivered.
// Then it is part of the hole.
func (u *unpacker) unreadable() bool {
	if u.view.Unknown == 0 {
		return false
	}
	u.holes.count++
	u.holes.field, u.holes.at = u.view.Unknown, u.at
	return true
}

// takeHole returns the hole that comes before the next entries.
func (u *unpacker) takeHole() (h hole) {
	h, u.holes = u.holes, hole{}
	return h
}

// fill puts the next messages into buf, which has a length of 0, as many as fit
// and are not separated by a hole. It returns the hole before them.
func (u *unpacker) fill(buf []item.Entry) (before hole, entries []item.Entry) {
	for len(buf) < cap(buf) && u.read() {
		if u.unreadable() {
			if len(buf) == 0 {
				continue
			}
			break
		}
		if len(buf) == 0 {
			before = u.takeHole()
		}
		buf = buf[:len(buf)+1]
		u.write(&buf[len(buf)-1])
	}
	if len(buf) == 0 {
		before = u.takeHole()
	}
	return before, buf
}

const (
	blockSize  = 4 << 10 // of copies of short data
	shortBytes = blockSize / 4
)

// copied returns the data of the message that was read last: a copy, unless it is
// long enough to share the frame.
func (u *unpacker) copied() []byte {
	data := u.view.Data
	switch n := len(data); {
	case n == 0:
		return []byte{}
	case n >= u.shares:
		return data
	case n > shortBytes:
		return slices.Clone(data)
	case n > cap(u.block)-len(u.block):
		u.block = make([]byte, 0, min(blockSize, max(n, u.body.Data())))
	}
	from := len(u.block)
	u.block = append(u.block, data...)
	return u.block[from:len(u.block):len(u.block)]
}

// unpackAtOnce is how many entries are made at a time.
const unpackAtOnce = 256

// scratches are for entries on their way from a frame into a log.
var scratches = sync.Pool{New: func() any { return new([unpackAtOnce]item.Entry) }}

// appendBatch puts a gap and the messages of u into the log, as one arrival.
// Members have had the first few already (known): those are only for members that
// come from behind, in a room with a history. kept is when they were kept. rs.mu is
// held.
//
// Entries are made of no more messages than the window holds, unless the room
// holds more for those that come from behind, and of a few at a time.
func (rs *roomState) appendBatch(earlier, gap roomlog.Gap, u *unpacker, known int, kept int64) wakeups {
	rs.mu.AssertHeld()
	scratch := scratches.Get().(*[unpackAtOnce]item.Entry)
	defer scratches.Put(scratch)
	var log roomlog.Wakeups[item.Entry, *membership]
	first := true
	wide := rs.kept != nil && rs.kept.store.Wide()
	if over := u.left - known - rs.window().Messages; over > 0 && !wide {
		u.passOver(known)
		u.takeHole()
		log, known, first = rs.log.PassOver(earlier, gap, u.passOver(over)), 0, false
		rs.hub.notUnderstood(rs.channel, u.takeHole())
		if rs.kept != nil && !u.at.IsZero() {
			rs.kept.store.Reset(u.at)
		}
	}
	for u.left > 0 || u.holes.count > 0 {
		hole, entries := u.fill(scratch[:0])
		missed := hole.count - min(known, hole.count)
		known -= hole.count - missed
		if missed > 0 {
			hole.count = missed
			rs.hub.notUnderstood(rs.channel, hole)
			if first {
				gap.Missed += missed
			}
		}
		if rs.kept != nil {
			if hole.count > 0 && !hole.at.IsZero() {
				rs.kept.store.Reset(hole.at)
			}
			rs.addRecent(entries, kept)
		}
		news := entries[min(known, len(entries)):]
		known -= len(entries) - len(news)
		switch {
		case first && len(news)+missed > 0:
			log = rs.log.AppendAfter(earlier, gap, news)
			first = false
		case len(news)+missed > 0:
			log = log.Join(rs.log.AppendMore(roomlog.Gap{Missed: missed}, news))
		}
		clear(entries) // the log has copied them
	}
	if first {
		log = rs.log.AppendAfter(earlier, gap, nil)
	}
	return rs.appended(log)
}
