package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Kinds of frames from kindNotices on are notices: what hubs tell each other,
// and messages that the history of their room does not keep. They have no
// sequence number, so nothing is missing when one is not understood, and a
// receiver drops those that it does not know. A frame of an unknown kind below
// kindNotices may have had messages that count.
const (
	kindNotices = 0x80
	kindHello   = 0x80
	kindControl = 0x81
	kindUnkept  = 0x82
)

// Levels say which fields a hub understands: all that were given numbers in the
// releases up to it.
const (
	// Level is what this release understands.
	Level = 1
	// OldestLevel is that of the oldest release that is supported. A hub that
	// has said nothing of itself may be of that.
	OldestLevel = 1
)

// Fields of a hello.
const (
	fieldLevel   = 1 // varint
	fieldRelease = 2 // text
	fieldAnswer  = 3 // empty: the hub wants to hear from the others
)

// MaxRelease is the longest text that a hello has for the release, in bytes.
const MaxRelease = 64

// ErrNotice means that a frame holds no numbered messages: it is a notice.
var ErrNotice = errors.New("wire: a notice, not a frame of messages")

// BetweenHubs reports whether a frame is a hello or a control notice, which no
// member gets.
func BetweenHubs(frame []byte) bool {
	return len(frame) > 4 && [3]byte(frame) == magic && frame[3] == Version && (frame[4] == kindHello || frame[4] == kindControl)
}

// A Hello is what a hub tells the others of itself.
type Hello struct {
	Hub     uint64 // the hub that says it
	Time    uint64 // when: ms since 1970 by its clock
	Level   int    // what it understands, at least 1
	Release string // of the program, for people to read
	Answer  bool   // it is new, and wants to hear from the others
}

// AppendHello appends the frame of a hello.
func AppendHello(b []byte, h *Hello) []byte {
	b = append(b, magic[:]...)
	b = append(b, Version, kindHello, flagFields)
	b = binary.BigEndian.AppendUint64(b, h.Hub)
	b = binary.BigEndian.AppendUint64(b, h.Time)
	f := AppendField(nil, Field{Number: fieldLevel, Value: binary.AppendUvarint(nil, uint64(h.Level))})
	if h.Release != "" {
		f = AppendField(f, Field{Number: fieldRelease, Value: []byte(h.Release)})
	}
	if h.Answer {
		f = AppendField(f, Field{Number: fieldAnswer})
	}
	return appendFields(b, f)
}

// DecodeHello reads a notice that is a hello. Another one, of a later release,
// is ErrNotice, and so is a hello with a field that has to be understood and is
// not known: they are to be dropped.
func DecodeHello(frame []byte) (h Hello, err error) {
	if len(frame) < headerMin || [3]byte(frame) != magic || frame[3] != Version || frame[4] < kindNotices {
		return h, fmt.Errorf("%w: no notice", ErrMalformed)
	}
	if frame[4] != kindHello {
		return h, ErrNotice
	}
	if flags := frame[5]; flags&^frameHints != flagFields {
		return h, fmt.Errorf("%w: flags %#x of a hello", ErrMalformed, flags)
	}
	h.Hub = binary.BigEndian.Uint64(frame[6:])
	h.Time = binary.BigEndian.Uint64(frame[14:])
	d := Decoder{rest: frame[headerMin:]}
	fields, unknown, ok := d.block(noticeFields)
	if !ok || len(d.rest) != 0 {
		return h, fmt.Errorf("%w: fields of a hello", ErrMalformed)
	}
	if unknown != 0 {
		return h, ErrNotice
	}
	return h, h.read(fields)
}

func (h *Hello) read(fields Fields) error {
	value, _ := fields.Get(fieldLevel)
	d := Decoder{rest: value}
	level, ok := d.uvarint()
	if !ok || len(d.rest) > 0 || level == 0 || level > 1<<31-1 {
		return fmt.Errorf("%w: format level of a hello", ErrMalformed)
	}
	h.Level = int(level)
	release, _ := fields.Get(fieldRelease)
	if len(release) > MaxRelease || !utf8.Valid(release) {
		return fmt.Errorf("%w: release in a hello", ErrMalformed)
	}
	h.Release = string(release)
	_, h.Answer = fields.Get(fieldAnswer)
	return nil
}
