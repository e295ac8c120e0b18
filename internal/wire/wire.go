// Package wire is the format of the frames that hubs send each other, and of
// the names of the channels they send them to. WIRE.md at the top of the module
// describes both for those who write another implementation.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	// Version is the version of the format that this package speaks.
	Version = 1

	// headerMin is the length of the fixed part of the header.
	headerMin = 22
	// messageMin is the length of the smallest message: flags, empty data.
	messageMin = 2
)

// magic begins every frame. Its first byte can begin no UTF-8 text, so a
// stranger's text is never taken for a frame.
var magic = [3]byte{0xFA, 'f', 'o'}

// Kinds of frames.
const kindMessages = 1

// Flags of a frame.
const flagResent = 1 << 0

// Flags of a message. The fields they announce follow in this order.
const (
	flagMulti       = 1 << 0 // an ID: the message went to several rooms
	flagExcept      = 1 << 1 // members who do not get it
	flagExceptRooms = 1 << 2 // rooms whose members do not get it
	flagTo          = 1 << 3 // the members who get it, of an inbox
	flagVolatile    = 1 << 4

	messageFlags = 1<<5 - 1
)

// A Header says where a frame comes from and which of the publisher's messages
// it holds.
type Header struct {
	Hub    uint64 // the publishing hub
	Stream uint64 // grows each time the hub begins anew to count in this channel
	Seq    uint64 // number of the first message in the stream, from 1
	Count  int    // number of messages
	Time   uint64 // when the frame was sent, in ms since 1970 by the hub's clock
	Resent bool   // an earlier attempt to send the frame may have arrived
}

// A Message is one message of a frame.
type Message struct {
	ID          uint64   // same for the copies in several rooms; 0: one room only
	Except      []string // IDs of members
	ExceptRooms []string
	To          []string // IDs of members; of an inbox only
	Volatile    bool
	Data        []byte
}

// Overhead is the most that AppendHeader adds.
const Overhead = headerMin + 3*binary.MaxVarintLen64

// Size returns how many bytes m takes in a frame.
func (m *Message) Size() int {
	n := 1 + uvarintLen(uint64(len(m.Data))) + len(m.Data)
	if m.ID != 0 {
		n += uvarintLen(m.ID)
	}
	for _, list := range [...][]string{m.Except, m.ExceptRooms, m.To} {
		if len(list) > 0 {
			n += listSize(list)
		}
	}
	return n
}

func listSize(list []string) int {
	n := uvarintLen(uint64(len(list)))
	for _, s := range list {
		n += uvarintLen(uint64(len(s))) + len(s)
	}
	return n
}

func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

// AppendHeader appends the header of a frame to b.
func AppendHeader(b []byte, h *Header) []byte {
	var flags byte
	if h.Resent {
		flags |= flagResent
	}
	b = append(b, magic[:]...)
	b = append(b, Version, kindMessages, flags)
	b = binary.BigEndian.AppendUint64(b, h.Hub)
	b = binary.BigEndian.AppendUint64(b, h.Time)
	b = binary.AppendUvarint(b, h.Stream)
	b = binary.AppendUvarint(b, h.Seq)
	return binary.AppendUvarint(b, uint64(h.Count))
}

// Again returns a frame to be sent after an attempt that failed. If that may
// have arrived all the same it says so; if not, it has a new time. It is a copy:
// whoever was given the first may still hold it.
func Again(frame []byte, mayHaveArrived bool, time uint64) []byte {
	again := append([]byte(nil), frame...)
	if mayHaveArrived {
		again[5] |= flagResent
	} else {
		binary.BigEndian.PutUint64(again[14:], time)
	}
	return again
}

// IsFirst reports whether a frame of a hub's is sent for the first time, or was
// surely never taken before.
func IsFirst(frame []byte) bool {
	return len(frame) >= headerMin && [3]byte(frame) == magic && frame[3] == Version && frame[4] == kindMessages &&
		frame[5]&flagResent == 0
}

// AppendMessage appends a message to the frame b.
func AppendMessage(b []byte, m *Message) []byte {
	var flags byte
	set := func(flag byte, on bool) {
		if on {
			flags |= flag
		}
	}
	set(flagMulti, m.ID != 0)
	set(flagExcept, len(m.Except) > 0)
	set(flagExceptRooms, len(m.ExceptRooms) > 0)
	set(flagTo, len(m.To) > 0)
	set(flagVolatile, m.Volatile)
	b = append(b, flags)
	if m.ID != 0 {
		b = binary.AppendUvarint(b, m.ID)
	}
	for _, list := range [...][]string{m.Except, m.ExceptRooms, m.To} {
		if len(list) > 0 {
			b = appendList(b, list)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(m.Data)))
	return append(b, m.Data...)
}

func appendList(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return b
}

// Errors of decoding.
var (
	// ErrForeign means that the payload is not a frame: a stranger's message.
	ErrForeign = errors.New("wire: not a frame")
	// ErrVersion means a frame of a version or kind we do not speak.
	ErrVersion = errors.New("wire: unknown version or kind of frame")
	// ErrMalformed means a frame that does not follow the format.
	ErrMalformed = errors.New("wire: malformed frame")
)

// A Decoder reads the messages of a frame one by one.
type Decoder struct {
	rest []byte
	left int
}

// Decode reads the header of a frame. The decoder that it returns reads the
// messages; they share the frame's bytes.
func Decode(frame []byte) (Header, Decoder, error) {
	var h Header
	if len(frame) < len(magic) || [3]byte(frame) != magic {
		return h, Decoder{}, ErrForeign
	}
	if len(frame) < headerMin {
		return h, Decoder{}, fmt.Errorf("%w: %d bytes are no header", ErrMalformed, len(frame))
	}
	if frame[3] != Version || frame[4] != kindMessages {
		return h, Decoder{}, fmt.Errorf("%w: version %d, kind %d", ErrVersion, frame[3], frame[4])
	}
	if frame[5]&^flagResent != 0 {
		return h, Decoder{}, fmt.Errorf("%w: frame flags %#x", ErrMalformed, frame[5])
	}
	h.Resent = frame[5]&flagResent != 0
	h.Hub = binary.BigEndian.Uint64(frame[6:])
	h.Time = binary.BigEndian.Uint64(frame[14:])
	d := Decoder{rest: frame[headerMin:]}
	var count uint64
	for _, v := range [...]*uint64{&h.Stream, &h.Seq, &count} {
		var ok bool
		if *v, ok = d.uvarint(); !ok {
			return h, Decoder{}, fmt.Errorf("%w: header cut short", ErrMalformed)
		}
	}
	// Bounded by what is there, so that a frame cannot make us allocate more.
	if count == 0 || count > uint64(len(d.rest)/messageMin) {
		return h, Decoder{}, fmt.Errorf("%w: %d messages in %d bytes", ErrMalformed, count, len(d.rest))
	}
	if h.Seq == 0 || h.Seq+count < h.Seq {
		return h, Decoder{}, fmt.Errorf("%w: sequence number %d", ErrMalformed, h.Seq)
	}
	h.Count = int(count)
	d.left = h.Count
	return h, d, nil
}

// Next reads the next message into m, or reports false at the end. After the
// last message nothing may follow.
func (d *Decoder) Next(m *Message) (bool, error) {
	if d.left == 0 {
		if len(d.rest) != 0 {
			return false, fmt.Errorf("%w: %d bytes after the last message", ErrMalformed, len(d.rest))
		}
		return false, nil
	}
	d.left--
	*m = Message{}
	if !d.message(m) {
		return false, fmt.Errorf("%w: message cut short or with unknown flags", ErrMalformed)
	}
	return true, nil
}

func (d *Decoder) message(m *Message) (ok bool) {
	if len(d.rest) == 0 || d.rest[0]&^messageFlags != 0 {
		return false
	}
	flags := d.rest[0]
	d.rest = d.rest[1:]
	m.Volatile = flags&flagVolatile != 0
	if flags&flagMulti != 0 {
		if m.ID, ok = d.uvarint(); !ok || m.ID == 0 {
			return false
		}
	}
	for _, f := range [...]struct {
		flag byte
		list *[]string
	}{{flagExcept, &m.Except}, {flagExceptRooms, &m.ExceptRooms}, {flagTo, &m.To}} {
		if flags&f.flag != 0 {
			if *f.list, ok = d.list(); !ok {
				return false
			}
		}
	}
	m.Data, ok = d.bytes()
	return ok
}

func (d *Decoder) list() ([]string, bool) {
	n, ok := d.uvarint()
	if !ok || n == 0 || n > uint64(len(d.rest)) {
		return nil, false
	}
	list := make([]string, 0, n)
	for range n {
		s, ok := d.bytes()
		if !ok {
			return nil, false
		}
		list = append(list, string(s))
	}
	return list, true
}

func (d *Decoder) bytes() ([]byte, bool) {
	n, ok := d.uvarint()
	if !ok || n > uint64(len(d.rest)) {
		return nil, false
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b, true
}

// uvarint reads a number in its shortest form, so that a message has one
// encoding only.
func (d *Decoder) uvarint() (uint64, bool) {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 || n != uvarintLen(v) {
		return 0, false
	}
	d.rest = d.rest[n:]
	return v, true
}
