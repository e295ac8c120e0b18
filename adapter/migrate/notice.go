package migrate

import (
	"encoding/binary"
	"time"

	"github.com/fanoutgo/fanout/internal/wire"
)

// What this package sends into the channels of hubs are notices of a kind that
// hubs drop, and fillers of histories. See WIRE.md.
const (
	kindMarker = 0x83
	noticeLen  = 22 // magic, version, kind, flags, hub, time

	kindMessages = 1
	flagFields   = 2
	fieldFiller  = 1 // of a header; it has to be understood

	// fillerHub is the hub of fillers. No hub has the ID 0.
	fillerHub = 0
	// fillerMost is the largest number of messages that a frame may have.
	fillerMost = wire.MaxCount
)

var magic = [3]byte{0xFA, 'f', 'o'}

// marker returns a notice that hubs drop.
func (a *Adapter) marker() []byte {
	b := append([]byte(nil), magic[:]...)
	b = append(b, wire.Version, kindMarker, 0)
	b = binary.BigEndian.AppendUint64(b, a.id)
	return binary.BigEndian.AppendUint64(b, uint64(time.Now().UnixMilli()))
}

// isMarker reports whether a frame is a marker.
func isMarker(frame []byte) bool {
	return len(frame) >= noticeLen && frame[4] == kindMarker && frame[3] == wire.Version && [3]byte(frame) == magic
}

// filler returns a frame that stands for messages from an offset on that the
// old history no longer has. Hubs report them missing.
func filler(from, messages uint64) []byte {
	b := append([]byte(nil), magic[:]...)
	b = append(b, wire.Version, kindMessages, flagFields)
	b = binary.BigEndian.AppendUint64(b, fillerHub)
	b = binary.BigEndian.AppendUint64(b, uint64(time.Now().UnixMilli()))
	b = binary.AppendUvarint(b, 1)
	b = binary.AppendUvarint(b, from)
	b = binary.AppendUvarint(b, messages)
	fields := binary.AppendUvarint(nil, fieldFiller<<1|1)
	fields = binary.AppendUvarint(fields, 0)
	b = binary.AppendUvarint(b, uint64(len(fields)))
	return append(b, fields...)
}

// isFiller reports whether a frame is a filler.
func isFiller(frame []byte) bool {
	if len(frame) < noticeLen || frame[4] != kindMessages || frame[5] != flagFields {
		return false
	}
	hub, ok := hubOf(frame)
	return ok && hub == fillerHub
}
