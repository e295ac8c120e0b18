package presence

import (
	"encoding/binary"
	"errors"
)

// The format of an encoded change: version, flags, number and count, then the
// lists of those who joined, those with new info, and those who left. Numbers
// are uvarints, a text is length and bytes. A person is its user; without one,
// an empty text, the hub in 8 bytes and the member's number; then since; then
// its info, but for one that left.
const (
	version   = 1
	flagReset = 1 << 0
	flagLarge = 1 << 1
)

// ErrMalformed means bytes that are no encoded change.
var ErrMalformed = errors.New("presence: malformed change")

// Append appends the encoded change to b. Members receive it as data.
func (c *Change) Append(b []byte) []byte {
	flags := byte(0)
	if c.Reset {
		flags |= flagReset
	}
	if c.Large {
		flags |= flagLarge
	}
	b = append(b, version, flags)
	b = binary.AppendUvarint(b, c.Number)
	b = binary.AppendUvarint(b, uint64(c.Count))
	b = appendPeople(b, c.Joined, true)
	b = appendPeople(b, c.Updated, true)
	return appendPeople(b, c.Left, false)
}

func appendPeople(b []byte, list []Person, info bool) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for i := range list {
		p := &list[i]
		b = binary.AppendUvarint(b, uint64(len(p.User)))
		b = append(b, p.User...)
		if p.User == "" {
			b = binary.BigEndian.AppendUint64(b, p.Hub)
			b = binary.AppendUvarint(b, p.Member)
		}
		b = binary.AppendUvarint(b, p.Since)
		if info {
			b = binary.AppendUvarint(b, uint64(len(p.Info)))
			b = append(b, p.Info...)
		}
	}
	return b
}

// Decode reads a change. Info shares the bytes of b.
func Decode(b []byte) (*Change, error) {
	if len(b) < 2 || b[0] != version {
		return nil, ErrMalformed
	}
	d := decoder{rest: b[2:]}
	c := &Change{Reset: b[1]&flagReset != 0, Large: b[1]&flagLarge != 0}
	c.Number, c.Count = d.number(), int(d.number())
	c.Joined, c.Updated, c.Left = d.people(true), d.people(true), d.people(false)
	if d.bad {
		return nil, ErrMalformed
	}
	return c, nil
}

// A decoder takes fields off an encoded change. After a bad field it returns
// zeros.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) fail() { d.rest, d.bad = nil, true }

func (d *decoder) number() uint64 {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[size:]
	return n
}

func (d *decoder) text() []byte {
	n := d.number()
	if n > uint64(len(d.rest)) {
		d.fail()
		return nil
	}
	s := d.rest[:n:n]
	d.rest = d.rest[n:]
	return s
}

func (d *decoder) people(info bool) []Person {
	const least = 2 // bytes of a person
	n := d.number()
	if n > uint64(len(d.rest)/least) {
		d.fail()
	}
	if d.bad || n == 0 {
		return nil
	}
	list := make([]Person, n)
	for i := range list {
		p := &list[i]
		p.User = string(d.text())
		if p.User == "" {
			if len(d.rest) < 8 {
				d.fail()
				return nil
			}
			p.Hub = binary.BigEndian.Uint64(d.rest)
			d.rest = d.rest[8:]
			p.Member = d.number()
		}
		p.Since = d.number()
		if info {
			p.Info = d.text()
		}
	}
	return list
}
