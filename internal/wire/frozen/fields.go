package frozen

import (
	"encoding/binary"
	"iter"
)

// Bounds of a block of fields, which [Decode] checks. They cannot be raised
// without a new version of the format: older readers refuse what is larger.
const (
	// MaxFields is the largest number of fields in a block.
	MaxFields = 64
	// MaxFieldBytes is the largest length of a block, in bytes.
	MaxFieldBytes = 64 << 10
	// MaxField is the largest number of a field. Those from PrivateFields on are
	// never given by this module: they are for experiments.
	MaxField      = 1<<16 - 1
	PrivateFields = 1 << 15
)

// The fields that this release understands, as sets of numbers below 64. A
// field whose number is in none of them is skipped or, if its must-understand
// bit is set, makes its messages unreadable.
const (
	headerFields  fieldSet = 0
	messageFields fieldSet = 0
	noticeFields  fieldSet = 1<<fieldLevel | 1<<fieldRelease | 1<<fieldAnswer
)

type fieldSet uint64

func (s fieldSet) has(number uint32) bool { return number < 64 && s>>number&1 == 1 }

// A Field is something that was added to the format after its first release,
// and that a reader may not know.
type Field struct {
	Number uint32 // from 1 to MaxField
	Must   bool   // who does not know the field cannot make use of the rest
	Value  []byte
}

// Fields is a block of fields in its encoding, without its length. It is nil if
// there are none. AppendField makes it, and so does decoding, which checks it.
type Fields []byte

// AppendField appends a field to a block. The numbers in a block ascend. Value
// is copied.
func AppendField(f Fields, one Field) Fields {
	key := uint64(one.Number) << 1
	if one.Must {
		key |= 1
	}
	f = binary.AppendUvarint(f, key)
	f = binary.AppendUvarint(f, uint64(len(one.Value)))
	return append(f, one.Value...)
}

// All returns the fields in the order of their numbers. Values share the bytes
// of the block. It allocates nothing.
func (f Fields) All() iter.Seq[Field] {
	return func(yield func(Field) bool) {
		d := Decoder{rest: f}
		for len(d.rest) > 0 {
			one, ok := d.field()
			if !ok || !yield(one) {
				return
			}
		}
	}
}

// Get returns the value of a field, which shares the bytes of the block. It is
// not ok if the block does not have the field.
func (f Fields) Get(number uint32) (value []byte, ok bool) {
	if len(f) == 0 {
		return nil, false
	}
	d := Decoder{rest: f}
	for len(d.rest) > 0 {
		one, ok := d.field()
		if !ok || one.Number > number {
			break
		}
		if one.Number == number {
			return one.Value, true
		}
	}
	return nil, false
}

// size returns how many bytes a block takes with its length, 0 if it is empty.
func (f Fields) size() int {
	if len(f) == 0 {
		return 0
	}
	return uvarintLen(uint64(len(f))) + len(f)
}

func appendFields(b []byte, f Fields) []byte {
	b = binary.AppendUvarint(b, uint64(len(f)))
	return append(b, f...)
}

// block reads a block with its length, and checks it. unknown is the number of
// the first field with the must-understand bit that is not among those known; 0
// if there is none.
func (d *Decoder) block(known fieldSet) (f Fields, unknown uint32, ok bool) {
	block, ok := d.bytes()
	if !ok || len(block) == 0 || len(block) > MaxFieldBytes {
		return nil, 0, false
	}
	last := uint32(0)
	in := Decoder{rest: block}
	for n := 0; len(in.rest) > 0; n++ {
		one, ok := in.field()
		if !ok || one.Number <= last || n == MaxFields {
			return nil, 0, false
		}
		if one.Must && unknown == 0 && !known.has(one.Number) {
			unknown = one.Number
		}
		last = one.Number
	}
	return Fields(block), unknown, true
}

// field reads one field.
func (d *Decoder) field() (one Field, ok bool) {
	key, ok := d.uvarint()
	if !ok || key>>1 == 0 || key>>1 > MaxField {
		return one, false
	}
	one.Number, one.Must = uint32(key>>1), key&1 == 1
	one.Value, ok = d.bytes()
	return one, ok
}
