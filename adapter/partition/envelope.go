package partition

import (
	"encoding/binary"
	"strings"
)

// Frames that this package wraps begin with one of these. No frame of a hub
// does.
const (
	copyMagic = "\xf5fp\x01"
	keptMagic = "\xf5fp\x02"
)

// sealCopy wraps a frame that is published on several partitions.
func sealCopy(from, number uint64, frame []byte) []byte {
	b := make([]byte, 0, len(copyMagic)+8+binary.MaxVarintLen64+len(frame))
	b = append(b, copyMagic...)
	b = binary.BigEndian.AppendUint64(b, from)
	b = binary.AppendUvarint(b, number)
	return append(b, frame...)
}

// openCopy reads what sealCopy has made.
func openCopy(b []byte) (from, number uint64, frame []byte, ok bool) {
	if len(b) < len(copyMagic)+9 || string(b[:len(copyMagic)]) != copyMagic {
		return 0, 0, nil, false
	}
	b = b[len(copyMagic):]
	from = binary.BigEndian.Uint64(b)
	number, n := binary.Uvarint(b[8:])
	if n <= 0 {
		return 0, 0, nil, false
	}
	return from, number, b[8+n:], true
}

// A kind says what a kept frame is.
type kind byte

const (
	shifted kind = iota // a frame of a hub; its epoch is the backend's and a shift
	moved               // a frame of a hub, copied from another partition
	filler              // it stands for messages that the other partition no longer had
	record              // a lineage
)

// A kept is a frame of a history as a partition has it.
type kept struct {
	kind  kind
	shift uint64 // of a shifted frame
	epoch uint64 // of a moved frame
	time  int64  // when a moved frame was kept, in ms since 1970
	frame []byte
}

// seal wraps a frame.
func (k *kept) seal() []byte {
	b := make([]byte, 0, len(keptMagic)+1+2*binary.MaxVarintLen64+len(k.frame))
	b = append(b, keptMagic...)
	b = append(b, byte(k.kind))
	switch k.kind {
	case shifted:
		b = binary.AppendUvarint(b, k.shift)
	case moved:
		b = binary.AppendUvarint(b, k.epoch)
		b = binary.AppendVarint(b, k.time)
	case filler, record:
	}
	return append(b, k.frame...)
}

// openKept reads what seal has made. Of other frames ok is false, and k is the
// frame.
func openKept(b []byte) (k kept, ok bool) {
	whole := kept{frame: b}
	if !strings.HasPrefix(string(b[:min(len(b), len(keptMagic))]), keptMagic) || len(b) == len(keptMagic) {
		return whole, false
	}
	k.kind, b = kind(b[len(keptMagic)]), b[len(keptMagic)+1:]
	n, m := 0, 0
	switch k.kind {
	case shifted:
		k.shift, n = binary.Uvarint(b)
		m = 1
	case moved:
		k.epoch, n = binary.Uvarint(b)
		k.time, m = binary.Varint(b[max(n, 0):])
	case filler, record:
		k.frame = b
		return k, true
	}
	if n <= 0 || m <= 0 {
		return whole, false
	}
	if k.kind == moved {
		n += m
	}
	k.frame = b[n:]
	return k, true
}
