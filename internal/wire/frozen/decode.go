package frozen

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
)

// Errors of decoding.
var (
	// ErrForeign means that the payload is not a frame: a stranger's message.
	ErrForeign = errors.New("wire: not a frame")
	// ErrVersion means a frame of a version or kind we do not speak.
	ErrVersion = errors.New("wire: unknown version or kind of frame")
	// ErrMalformed means a frame that does not follow the format.
	ErrMalformed = errors.New("wire: malformed frame")
)

// A View is a message of a frame as a [Decoder] reads it. It shares the bytes
// of the frame.
type View struct {
	ID          uint64 // as in Message
	Except      List
	ExceptRooms List
	To          List
	Volatile    bool
	// Unknown is the number of a field that has to be understood, and that this
	// release does not know: the message cannot be delivered. 0: there is none.
	Unknown uint32
	Fields  Fields
	Data    []byte

	// rare: something is set but Volatile and Data, so that a Decoder has to
	// clear it.
	rare bool
}

// View returns m as a decoder that knows its fields would read it. Fields and
// Data are shared.
func (m *Message) View() View {
	return View{
		ID: m.ID, Except: makeList(m.Except), ExceptRooms: makeList(m.ExceptRooms), To: makeList(m.To),
		Volatile: m.Volatile, Fields: m.Fields, Data: m.Data, rare: true,
	}
}

// A List is a list of a message in its encoding: the number of entries, then
// each with its length. It is nil if the message has none. Lists are made by a
// Decoder and by Message.View only, so they are known to be well-formed.
type List []byte

func makeList(list []string) List {
	if len(list) == 0 {
		return nil
	}
	return appendList(make([]byte, 0, listSize(list)), list)
}

// Len returns the number of entries.
func (l List) Len() int {
	n, _ := binary.Uvarint(l)
	return int(n)
}

// All returns the entries in their order. They share the bytes of the list.
func (l List) All() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		d := Decoder{rest: l}
		n, _ := d.uvarint()
		for range n {
			entry, ok := d.bytes()
			if !ok || !yield(entry) {
				return
			}
		}
	}
}

// A Decoder reads the messages of a frame one by one.
type Decoder struct {
	rest    []byte
	left    int
	data    int
	unknown uint32 // of the header: see View.Unknown
}

// Decode checks a frame and reads its header. The decoder that it returns reads
// the messages; they share the frame's bytes. Decode takes time in proportion
// to the number of messages, list entries and fields, and allocates nothing.
//
// Of a frame whose header has a field that has to be understood and is not
// known, only the header is read. Its messages have nothing but
// [View.Unknown].
func Decode(frame []byte) (h Header, d Decoder, err error) {
	if err = d.header(frame, &h); err == nil && d.unknown == 0 {
		d.data, err = d.check()
	}
	if err != nil {
		d = Decoder{}
	}
	return h, d, err
}

// header reads the header of a frame.
func (d *Decoder) header(frame []byte, h *Header) error {
	if len(frame) < len(magic) || [3]byte(frame) != magic {
		return ErrForeign
	}
	if len(frame) < headerMin {
		return fmt.Errorf("%w: %d bytes are no header", ErrMalformed, len(frame))
	}
	if frame[3] != Version || frame[4] != kindMessages {
		if frame[3] == Version && frame[4] >= kindNotices {
			return ErrNotice
		}
		return fmt.Errorf("%w: version %d, kind %d", ErrVersion, frame[3], frame[4])
	}
	if frame[5]&^(flagResent|flagFields|frameHints) != 0 {
		return fmt.Errorf("%w: frame flags %#x", ErrMalformed, frame[5])
	}
	h.Resent = frame[5]&flagResent != 0
	h.Hub = binary.BigEndian.Uint64(frame[6:])
	h.Time = binary.BigEndian.Uint64(frame[14:])
	d.rest = frame[headerMin:]
	var count uint64
	for _, v := range [...]*uint64{&h.Stream, &h.Seq, &count} {
		var ok bool
		if *v, ok = d.uvarint(); !ok {
			return fmt.Errorf("%w: header cut short", ErrMalformed)
		}
	}
	if frame[5]&flagFields != 0 {
		var ok bool
		if h.Fields, d.unknown, ok = d.block(headerFields); !ok {
			return fmt.Errorf("%w: fields of the header", ErrMalformed)
		}
	}
	if count == 0 || count > MaxCount || d.unknown == 0 && count > uint64(len(d.rest)/messageMin) {
		return fmt.Errorf("%w: %d messages in %d bytes", ErrMalformed, count, len(d.rest))
	}
	if h.Seq == 0 || h.Seq+count < h.Seq {
		return fmt.Errorf("%w: sequence number %d", ErrMalformed, h.Seq)
	}
	h.Count = int(count)
	d.left = h.Count
	return nil
}

// check reads all messages of a copy of the decoder. It returns the length of
// their data, or says what is wrong.
func (d Decoder) check() (data int, err error) {
	entries := 0
	var v View
	for ; d.left > 0; d.left-- {
		if body, rest, ok := plain(d.rest); ok {
			data += len(body)
			d.rest = rest
			continue
		}
		if !d.message(&v) {
			return 0, fmt.Errorf("%w: message cut short, with unknown flags, or with too long a list or block", ErrMalformed)
		}
		data += len(v.Data)
		entries += v.Except.Len() + v.ExceptRooms.Len() + v.To.Len()
	}
	switch {
	case len(d.rest) != 0:
		return 0, fmt.Errorf("%w: %d bytes after the last message", ErrMalformed, len(d.rest))
	case entries > MaxLists:
		return 0, fmt.Errorf("%w: %d entries in lists, at most %d are allowed", ErrMalformed, entries, MaxLists)
	}
	return data, nil
}

// Next reads the next message into v, or reports false at the end.
func (d *Decoder) Next(v *View) bool {
	if d.left == 0 {
		return false
	}
	d.left--
	if d.unknown != 0 {
		*v = View{Unknown: d.unknown, rare: true}
		return true
	}
	return d.message(v)
}

// Data returns the number of bytes of data in all messages of the frame.
func (d *Decoder) Data() int { return d.data }

// Unknown returns the number of the header's field that makes all messages
// unreadable; 0 if there is none.
func (d *Decoder) Unknown() uint32 { return d.unknown }

// plain takes a message of the most frequent form off b: no lists, no ID, and
// less than 16 KiB of data. It is not ok if the message has another form, or is
// broken.
func plain(b []byte) (data, rest []byte, ok bool) {
	if len(b) < 3 || b[0]&^flagVolatile != 0 {
		return nil, nil, false
	}
	from, to := 2, 2+int(b[1])
	if b[1] >= 0x80 {
		if b[2]-1 >= 0x7f {
			return nil, nil, false // more than two bytes, or not the shortest form
		}
		from, to = 3, 3+int(b[1]&0x7f)+int(b[2])<<7
	}
	if to > len(b) {
		return nil, nil, false
	}
	return b[from:to:to], b[to:], true
}

func (d *Decoder) message(v *View) (ok bool) {
	if data, rest, ok := plain(d.rest); ok {
		if v.rare {
			*v = View{}
		}
		v.Volatile = d.rest[0]&flagVolatile != 0
		v.Data, d.rest = data, rest
		return true
	}
	if len(d.rest) == 0 || d.rest[0]&^(messageFlags|messageHints) != 0 {
		return false
	}
	flags := d.rest[0] & messageFlags
	d.rest = d.rest[1:]
	*v = View{Volatile: flags&flagVolatile != 0, rare: flags&^flagVolatile != 0}
	if v.rare && !d.optional(flags, v) {
		return false
	}
	v.Data, ok = d.bytes()
	return ok
}

// optional reads what few messages have.
func (d *Decoder) optional(flags byte, v *View) (ok bool) {
	if flags&flagMulti != 0 {
		if v.ID, ok = d.uvarint(); !ok || v.ID == 0 {
			return false
		}
	}
	for _, f := range [...]struct {
		flag byte
		list *List
	}{{flagExcept, &v.Except}, {flagExceptRooms, &v.ExceptRooms}, {flagTo, &v.To}} {
		if flags&f.flag != 0 {
			if *f.list, ok = d.list(); !ok {
				return false
			}
		}
	}
	if flags&flagExtended != 0 {
		v.Fields, v.Unknown, ok = d.block(messageFields)
		return ok
	}
	return true
}

func (d *Decoder) list() (List, bool) {
	from := d.rest
	n, ok := d.uvarint()
	if !ok || n == 0 || n > MaxList {
		return nil, false
	}
	for range n {
		if entry, ok := d.bytes(); !ok || len(entry) > MaxEntry {
			return nil, false
		}
	}
	end := len(from) - len(d.rest)
	return List(from[:end:end]), true
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
	if len(d.rest) > 0 && d.rest[0] < 0x80 {
		v := uint64(d.rest[0])
		d.rest = d.rest[1:]
		return v, true
	}
	v, n := binary.Uvarint(d.rest)
	if n <= 0 || n != uvarintLen(v) {
		return 0, false
	}
	d.rest = d.rest[n:]
	return v, true
}
