package wire

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
)

// Kinds of payloads by which a server tells the position of a frame that it has
// put into a history.
const (
	kindKept      = 2 // the frame comes behind its position
	kindAnnounced = 3 // it is the next payload, by itself
	kindLate      = 4 // as kindKept, but sent by a hub, which may be late
)

var (
	keptPrefix      = []byte{magic[0], magic[1], magic[2], Version, kindKept}
	announcedPrefix = []byte{magic[0], magic[1], magic[2], Version, kindAnnounced}
	latePrefix      = []byte{magic[0], magic[1], magic[2], Version, kindLate}
	castagnoli      = crc32.MakeTable(crc32.Castagnoli)
)

// Checksum is what an announcement says of its frame: CRC-32C, in 8 hexadecimal
// digits.
func Checksum(frame []byte) string { return fmt.Sprintf("%08x", crc32.Checksum(frame, castagnoli)) }

// An Announcement is the position of the frame that comes next. The zero one is
// none.
type Announcement struct {
	Epoch, Offset uint64
	checksum      string
}

// Is reports whether a frame is the one that was announced.
func (a *Announcement) Is(frame []byte) bool {
	return a.Offset != 0 && Checksum(frame) == a.checksum
}

// AppendAnnouncement appends the payload that announces a frame, as the server
// writes it.
func AppendAnnouncement(b []byte, epoch, offset uint64, frame []byte) []byte {
	b = append(b, announcedPrefix...)
	b = append(b, Checksum(frame)...)
	return fmt.Appendf(b, "%d-%d", epoch, offset)
}

// DecodeAnnouncement reads an announcement. It is not ok if the payload is
// none.
func DecodeAnnouncement(payload []byte) (a Announcement, ok bool) {
	rest, ok := bytes.CutPrefix(payload, announcedPrefix)
	if !ok || len(rest) < 8 || len(rest) > 8+MaxPosition {
		return a, false
	}
	a.checksum = string(rest[:8])
	a.Epoch, a.Offset, ok = ParsePosition(string(rest[8:]))
	return a, ok && a.Offset > 0
}

// MaxPosition is the length of the longest position: epoch, a hyphen, offset.
const MaxPosition = 41

// AppendKept appends the payload of a kept frame, as the server writes it.
func AppendKept(b []byte, epoch, offset uint64, frame []byte) []byte {
	return appendKept(b, keptPrefix, epoch, offset, frame)
}

// AppendLate appends the payload of a kept frame that the server could not
// publish itself: frames after it may have come before.
func AppendLate(b []byte, epoch, offset uint64, frame []byte) []byte {
	return appendKept(b, latePrefix, epoch, offset, frame)
}

func appendKept(b, prefix []byte, epoch, offset uint64, frame []byte) []byte {
	at := strconv.AppendUint(nil, epoch, 10)
	at = append(at, '-')
	at = strconv.AppendUint(at, offset, 10)
	b = append(b, prefix...)
	b = append(b, byte(len(at)))
	b = append(b, at...)
	return append(b, frame...)
}

// DecodeKept takes the payload of a kept frame apart. It is not ok if the
// payload is none. The frame shares the payload's bytes.
func DecodeKept(payload []byte) (epoch, offset uint64, frame []byte, ok bool) {
	return decodeKept(payload, keptPrefix)
}

// DecodeLate is DecodeKept for what AppendLate has written.
func DecodeLate(payload []byte) (epoch, offset uint64, frame []byte, ok bool) {
	return decodeKept(payload, latePrefix)
}

func decodeKept(payload, prefix []byte) (epoch, offset uint64, frame []byte, ok bool) {
	rest, ok := bytes.CutPrefix(payload, prefix)
	if !ok || len(rest) < 1 || rest[0] > MaxPosition || len(rest) < 1+int(rest[0]) {
		return 0, 0, nil, false
	}
	at, frame := string(rest[1:1+rest[0]]), rest[1+rest[0]:]
	epoch, offset, ok = ParsePosition(at)
	return epoch, offset, frame[:len(frame):len(frame)], ok && offset > 0
}

// ParsePosition reads "epoch-offset", which is the ID of a stream's entry too.
func ParsePosition(s string) (epoch, offset uint64, ok bool) {
	e, o, ok := strings.Cut(s, "-")
	epoch, err1 := strconv.ParseUint(e, 10, 64)
	offset, err2 := strconv.ParseUint(o, 10, 64)
	return epoch, offset, ok && err1 == nil && err2 == nil
}

// HistoryKeys returns the names of the keys of a channel's history, which share
// the channel's slot: a stream, and the note of where it is. Those of rooms end
// with a brace and all others do not, so no two channels with a hash tag have
// the same.
func HistoryKeys(channel string) (stream, note string) {
	if prefix, room, ok := cutRoom(channel); ok {
		stream = prefix + ":h:{" + room
	} else {
		stream = SameSlot(channel, ":h")
	}
	return stream, stream + ":at"
}

// IsRoom reports whether a channel is that of a room.
func IsRoom(channel string) bool {
	_, _, ok := cutRoom(channel)
	return ok
}

// cutRoom cuts the channel of a room around its kind.
func cutRoom(channel string) (prefix, room string, ok bool) {
	prefix, room, ok = strings.Cut(channel, ":r:{")
	return prefix, room, ok && !strings.ContainsAny(prefix, "{}") && strings.HasSuffix(room, "}")
}

// SameSlot returns a name that begins like channel, ends with suffix and has
// the slot of channel.
func SameSlot(channel, suffix string) string {
	if _, rest, ok := strings.Cut(channel, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			return channel + suffix
		}
	}
	return "{" + channel + "}" + suffix
}
