// Package batch decodes the messages of a frame and makes them entries of a
// room's log, no more at a time than are needed:
//
//	frame ── Open ──▶ Batch ── Unpack ──▶ Unpacker ── Fill, or Read and Entry ──▶ entries
//	         checked           decoded one by one
//
// Messages that have a field which must be understood, and which this release
// does not know, are not delivered: an Unpacker counts them in NotUnderstood.
//
// Nothing in this package locks, waits or reads a clock.
package batch

import (
	"errors"
	"slices"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/outbox"
	"github.com/fanoutgo/fanout/internal/wire"
)

// A Batch is a frame on its way into a log: it has been checked, and is decoded
// when it gets there. Until then it takes no more than its bytes. The zero
// Batch holds nothing.
type Batch struct {
	Head wire.Header // Count 0: the frame is not a hub's

	body    wire.Decoder
	size    int    // of the frame
	foreign []byte // the payload of a program that is not a hub; nil: a hub's frame
}

// Open checks a frame, and makes b, which is zero, the batch of its messages.
// It stays zero after an error. A payload that is no frame is a batch of one
// message.
func (b *Batch) Open(frame []byte) error {
	head, body, err := wire.Decode(frame)
	switch {
	case err == nil:
		b.Head, b.body, b.size = head, body, len(frame)
	case errors.Is(err, wire.ErrForeign):
		b.foreign, b.size = frame, len(frame)
		if frame == nil {
			b.foreign = []byte{}
		}
		return nil
	}
	return err
}

// Count returns the number of messages.
func (b *Batch) Count() int {
	if b.foreign != nil {
		return 1
	}
	return b.Head.Count
}

// Foreign reports whether the batch is a payload that is no frame.
func (b *Batch) Foreign() bool { return b.foreign != nil }

// slack is how many bytes a frame may have besides twice its data, if all data
// is to share it.
const slack = 512

// shares returns the least length of data that shares the frame's bytes. A
// frame as a hub sends it is shared by all of its messages: few of its bytes
// are not data, and it is no larger than what a hub gathers.
func (b *Batch) shares() int {
	ofHub := b.Count() <= 1 || b.size <= outbox.MaxFrame+wire.Overhead
	if b.foreign != nil || ofHub && b.size <= 2*b.body.Data()+slack {
		return 0
	}
	return (b.size + 1) / 2
}

// NotUnderstood is messages that came and cannot be delivered, because they
// have a field that has to be understood and that this release does not know.
// They have numbers and positions like others, and count as missing.
type NotUnderstood struct {
	Count int
	Field uint32           // of the last
	At    adapter.Position // of the last
}

// An Unpacker makes entries of the messages of a batch. Only one goroutine may
// use it.
type Unpacker struct {
	// At is the position of the message that was read last. The zero Position
	// means that the messages have none.
	At adapter.Position

	left    int // messages
	sender  string
	foreign []byte
	body    wire.Decoder
	view    wire.View // the message that was read last
	hub     uint64    // that published the batch
	filters item.Maker
	unknown NotUnderstood // since it was last taken

	// Data shares the frame's bytes if it has at least shares bytes. Then it keeps
	// the whole frame alive.
	shares int
	block  []byte // room for other data
}

// Unpack makes u, which is zero, the unpacker of what comes after the first
// skip messages. Filters are for the members of the hub home.
func (b *Batch) Unpack(u *Unpacker, home *item.Home, skip int, sender string) {
	u.left, u.sender, u.foreign, u.body, u.hub, u.shares = b.Count(), sender, b.foreign, b.body, b.Head.Hub, b.shares()
	u.filters.Home = home
	if skip > 0 {
		u.PassOver(skip)
		u.TakeNotUnderstood() // they were reported before
	}
}

// Left returns the number of messages that are still to be read.
func (u *Unpacker) Left() int { return u.left }

// More reports whether there are messages to be read, or messages that were not
// understood to be taken.
func (u *Unpacker) More() bool { return u.left > 0 || u.unknown.Count > 0 }

// Read reads the next message, and is false at the end.
func (u *Unpacker) Read() bool {
	if u.left == 0 {
		return false
	}
	u.left--
	if !u.At.IsZero() {
		u.At.Offset++
	}
	if u.foreign != nil {
		u.view = wire.View{Data: u.foreign}
		return true
	}
	return u.body.Next(&u.view)
}

// To returns the members that the message that was read last names.
func (u *Unpacker) To() wire.List { return u.view.To }

// NoneUnderstood reports whether no message of the frame is understood because
// of a field of its header. Then it is not known whom the messages are for.
func (u *Unpacker) NoneUnderstood() bool { return u.body.Unknown() != 0 }

// Entry makes an entry of the message that was read last.
func (u *Unpacker) Entry() (e item.Entry) {
	u.write(&e)
	return e
}

func (u *Unpacker) write(e *item.Entry) {
	e.Data, e.Sender, e.At, e.Volatile = u.view.Data, u.sender, u.At, u.view.Volatile
	if u.shares > 0 || len(e.Data) == 0 {
		e.Data = u.copied()
	}
	e.Filter = u.filters.Make(u.hub, &u.view)
}

// PassOver reads the next n messages, makes nothing of them, and returns how
// many of them count as missing.
func (u *Unpacker) PassOver(n int) (counting int) {
	for ; n > 0 && u.Read(); n-- {
		if !u.Understood() || !u.view.Volatile {
			counting++
		}
	}
	return counting
}

// Understood reports whether the message that was read last can be delivered.
// If it cannot, this counts it, so it is called once for each message.
func (u *Unpacker) Understood() bool {
	if u.view.Unknown == 0 {
		return true
	}
	u.unknown.Count++
	u.unknown.Field, u.unknown.At = u.view.Unknown, u.At
	return false
}

// TakeNotUnderstood returns the messages that were not understood since the
// last call.
func (u *Unpacker) TakeNotUnderstood() (n NotUnderstood) {
	n, u.unknown = u.unknown, NotUnderstood{}
	return n
}

// Fill puts the next messages into buf, which has a length of 0, as many as fit
// and are not separated by messages that are not understood. It returns those
// that come before them.
func (u *Unpacker) Fill(buf []item.Entry) (before NotUnderstood, entries []item.Entry) {
	for len(buf) < cap(buf) && u.Read() {
		if !u.Understood() {
			if len(buf) == 0 {
				continue
			}
			break
		}
		if len(buf) == 0 {
			before = u.TakeNotUnderstood()
		}
		buf = buf[:len(buf)+1]
		u.write(&buf[len(buf)-1])
	}
	if len(buf) == 0 {
		before = u.TakeNotUnderstood()
	}
	return before, buf
}

const (
	blockSize  = 4 << 10 // of copies of short data
	shortBytes = blockSize / 4
)

// copied returns the data of the message that was read last: a copy, unless it
// is long enough to share the frame.
func (u *Unpacker) copied() []byte {
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
