// Package wire is the format of the frames that hubs send each other, and of
// the names of the channels they send them to. WIRE.md at the top of the module
// describes both for authors of other implementations.
//
// Additions to the format are in [Fields]. A reader skips a field that it does
// not know. If the field says that it has to be understood, the reader knows
// which messages it cannot read.
//
// Decoding allocates nothing. [Decode] checks the whole frame first, so that a
// frame is either read completely or refused; a [Decoder] then reads one
// message at a time, whose data and lists share the frame's bytes.
package wire

import (
	"bytes"
	"encoding/binary"
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
const (
	flagResent = 1 << 0
	flagFields = 1 << 1 // a block of fields follows the header

	// Readers ignore these, so that a later release may say with them what does
	// not change what a reader makes of the frame. The others are malformed:
	// they may change where things are.
	frameHints = 1<<2 | 1<<3
)

// Flags of a message. The fields they announce follow in this order.
const (
	flagMulti       = 1 << 0 // an ID: the message went to several rooms
	flagExcept      = 1 << 1 // members that do not get it
	flagExceptRooms = 1 << 2 // rooms whose members do not get it
	flagTo          = 1 << 3 // the members that get it, of an inbox
	flagVolatile    = 1 << 4
	flagExtended    = 1 << 5 // a block of fields

	messageHints = 1 << 6 // ignored, as frameHints
	messageFlags = 1<<6 - 1
)

// Bounds of a frame, which [Decode] checks before anything is made of it. They
// are no less than what a hub of this module sends.
const (
	// MaxList is the largest number of entries in a list of a message.
	MaxList = 1024
	// MaxEntry is the largest length of an entry of a list, in bytes. Room
	// names and member IDs are no longer.
	MaxEntry = MaxRoom
	// MaxLists is the largest number of entries in all lists of a frame.
	MaxLists = 1 << 15
	// MaxCount is the largest number of messages in a frame.
	MaxCount = 1 << 17
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
	Fields Fields // nil: none
}

// A Message is one message, to be encoded.
type Message struct {
	ID          uint64   // same for the copies in several rooms; 0: one room only
	Except      []string // IDs of members
	ExceptRooms []string
	To          []string // IDs of members; of an inbox only
	Volatile    bool
	Fields      Fields // see AppendField; nil: none
	Data        []byte
}

// Overhead is the most that AppendHeader adds for a header without fields.
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
	return n + m.Fields.size()
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
	if len(h.Fields) > 0 {
		flags |= flagFields
	}
	b = append(b, magic[:]...)
	b = append(b, Version, kindMessages, flags)
	b = binary.BigEndian.AppendUint64(b, h.Hub)
	b = binary.BigEndian.AppendUint64(b, h.Time)
	b = binary.AppendUvarint(b, h.Stream)
	b = binary.AppendUvarint(b, h.Seq)
	b = binary.AppendUvarint(b, uint64(h.Count))
	if len(h.Fields) > 0 {
		b = appendFields(b, h.Fields)
	}
	return b
}

// Again returns a copy of a frame, to be sent after an attempt that failed. If
// that attempt may have arrived, the copy has the flag resent; if not, a new
// time. The first frame is not changed, since the adapter may still hold it.
func Again(frame []byte, mayHaveArrived bool, time uint64) []byte {
	again := append([]byte(nil), frame...)
	if mayHaveArrived {
		again[5] |= flagResent
	} else {
		binary.BigEndian.PutUint64(again[14:], time)
	}
	return again
}

// IsFirst reports whether a frame of a hub's is sent for the first time, or has
// certainly never been accepted before.
func IsFirst(frame []byte) bool {
	return len(frame) >= headerMin && [3]byte(frame) == magic && frame[3] == Version && frame[4] == kindMessages &&
		frame[5]&flagResent == 0
}

// Same reports whether two frames are attempts to send one.
func Same(f, g []byte) bool {
	x, _, err := Decode(f)
	if err != nil || x.Count == 0 {
		return bytes.Equal(f, g)
	}
	y, _, err := Decode(g)
	return err == nil && x.Hub == y.Hub && x.Stream == y.Stream && x.Seq == y.Seq && x.Count == y.Count
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
	set(flagExtended, len(m.Fields) > 0)
	b = append(b, flags)
	if m.ID != 0 {
		b = binary.AppendUvarint(b, m.ID)
	}
	for _, list := range [...][]string{m.Except, m.ExceptRooms, m.To} {
		if len(list) > 0 {
			b = appendList(b, list)
		}
	}
	if len(m.Fields) > 0 {
		b = appendFields(b, m.Fields)
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
