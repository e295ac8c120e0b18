package wire

import (
	"encoding/binary"
	"fmt"
)

// A control notice carries what hubs ask and tell each other: see package
// control for the payload, which is all that follows the fields, if there are
// any. It has no number, so no message is missing when one is lost, or when a
// hub of an older release drops it. A hub that needs an answer asks again.

// AppendControl appends the frame of a control notice.
func AppendControl(b []byte, hub, time uint64, payload []byte) []byte {
	b = append(b, magic[:]...)
	b = append(b, Version, kindControl, 0)
	b = binary.BigEndian.AppendUint64(b, hub)
	b = binary.BigEndian.AppendUint64(b, time)
	return append(b, payload...)
}

// DecodeControl reads a control notice: which hub sent it, and the payload,
// which shares the frame's bytes. Another notice is ErrNotice, and so is one
// with a field that has to be understood and is not known.
func DecodeControl(frame []byte) (hub uint64, payload []byte, err error) {
	if len(frame) < headerMin || [3]byte(frame) != magic || frame[3] != Version || frame[4] < kindNotices {
		return 0, nil, fmt.Errorf("%w: no notice", ErrMalformed)
	}
	if frame[4] != kindControl {
		return 0, nil, ErrNotice
	}
	flags := frame[5] &^ frameHints
	if flags&^flagFields != 0 {
		return 0, nil, fmt.Errorf("%w: flags %#x of a control notice", ErrMalformed, frame[5])
	}
	d := Decoder{rest: frame[headerMin:]}
	if flags&flagFields != 0 {
		_, unknown, ok := d.block(0)
		switch {
		case !ok:
			return 0, nil, fmt.Errorf("%w: fields of a control notice", ErrMalformed)
		case unknown != 0:
			return 0, nil, ErrNotice
		}
	}
	return binary.BigEndian.Uint64(frame[6:]), d.rest, nil
}
