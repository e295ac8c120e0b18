package wire

import (
	"bytes"
	"strconv"
	"strings"
)

// kindKept is a frame that is kept in a history, behind its position. The server
// puts that there when it takes the frame.
const kindKept = 2

// keptPrefix begins the payload of a kept frame.
var keptPrefix = []byte{magic[0], magic[1], magic[2], Version, kindKept}

// MaxPosition is the length of the longest position: epoch, a hyphen, offset.
const MaxPosition = 41

// AppendKept appends the payload of a kept frame, as the server writes it.
func AppendKept(b []byte, epoch, offset uint64, frame []byte) []byte {
	at := strconv.AppendUint(nil, epoch, 10)
	at = append(at, '-')
	at = strconv.AppendUint(at, offset, 10)
	b = append(b, keptPrefix...)
	b = append(b, byte(len(at)))
	b = append(b, at...)
	return append(b, frame...)
}

// DecodeKept takes the payload of a kept frame apart. It is not ok if the
// payload is none. The frame shares the payload's bytes.
func DecodeKept(payload []byte) (epoch, offset uint64, frame []byte, ok bool) {
	rest, ok := bytes.CutPrefix(payload, keptPrefix)
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
// the channel's slot: a stream, and the note of where it is.
func HistoryKeys(channel string) (stream, note string) {
	if prefix, room, ok := strings.Cut(channel, ":r:{"); ok && !strings.ContainsAny(prefix, "{}") {
		stream = prefix + ":h:{" + room
	} else {
		stream = SameSlot(channel, ":h")
	}
	return stream, stream + ":at"
}

// SameSlot returns a name that begins like channel, ends with suffix and has the
// slot of channel.
func SameSlot(channel, suffix string) string {
	if _, rest, ok := strings.Cut(channel, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			return channel + suffix
		}
	}
	return "{" + channel + "}" + suffix
}
