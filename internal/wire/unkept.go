package wire

import "encoding/binary"

// AppendUnkept appends the frame of a notice that carries another frame, whose
// messages go into no history and have no numbers that count.
func AppendUnkept(b []byte, hub, time uint64, frame []byte) []byte {
	b = append(b, magic[:]...)
	b = append(b, Version, kindUnkept, 0)
	b = binary.BigEndian.AppendUint64(b, hub)
	b = binary.BigEndian.AppendUint64(b, time)
	return append(b, frame...)
}

// DecodeUnkept returns the frame that an unkept notice carries. It is not ok if
// the frame is no such notice.
func DecodeUnkept(frame []byte) (carried []byte, ok bool) {
	if len(frame) < headerMin || [3]byte(frame) != magic || frame[3] != Version || frame[4] != kindUnkept || frame[5] != 0 {
		return nil, false
	}
	return frame[headerMin:], true
}
