package main

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/fanoutgo/fanout"
)

// maxText is how long a message may be, in bytes.
const maxText = 64 << 10

// A said is a message as pages get it, but for its position, which nobody knows
// before it has come back from the backend (withPosition). It is also what is
// published: whoever says something encodes it, once, and everybody else passes
// the bytes on.
type said struct {
	From string `json:"from"`
	Text string `json:"text"`
	Room string `json:"room"`
	Time string `json:"time,omitempty"` // when it was said, as RFC 3339 in UTC

	// Stranger marks what did not come from a chat like this one but, say, from
	// redis-cli. From is empty then: nobody has checked who it was.
	Stranger bool `json:"stranger,omitempty"`
}

// A missing is the frame for a gap: messages of the room did not reach this
// page. It has no text, so nobody takes it for a message.
type missing struct {
	Gap     int  `json:"gap"`
	Unknown bool `json:"unknown"` // there may be more than Gap
}

// A failure is the frame for something that the page asked for in vain.
type failure struct {
	Error string `json:"error"`
}

// newSaid returns the document to publish.
func newSaid(from, room string, text []byte) []byte {
	return encode(said{
		From: from,
		Text: string(text),
		Room: room,
		Time: time.Now().UTC().Format("2006-01-02T15:04:05.000Z07:00"),
	})
}

// encode returns v as JSON. Pages set text as text, so <, > and & need no
// escape, which would make them six times as long.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // strings, numbers and booleans: cannot be
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// frames turns messages into the frames that pages get. Almost always that is
// the message's data as it is, with its position if the room keeps a history;
// but anybody who reaches Redis can publish anything, and a frame that is not
// UTF-8 makes a browser hang up. So each message is examined, which costs more
// than all the rest, and therefore once: all members of the process share its
// bytes, by whose address it is recognised when the next member comes along.
type frames struct {
	// Two generations: when the young one is large enough it becomes the old
	// one, and what was in that is forgotten. Keys are *byte, values *frame.
	young, old atomic.Pointer[sync.Map]
	size       atomic.Int64 // of the young one, about, in bytes
}

type frame struct {
	data []byte // of the message; keeps anything else from getting its address
	at   fanout.Position
	json []byte
}

// is reports whether the frame is that of m, whose data begins where the
// frame's does. Data that went to several rooms may be the same bytes in all of
// them, but it has a position in each.
func (f *frame) is(m *fanout.Message) bool {
	return len(f.data) == len(m.Data) && f.at == m.Position
}

// generation is the size of one, in bytes. A few thousand chat messages are
// more than a room's window holds, so members that lag find theirs as well.
const generation = 4 << 20

func newFrames() *frames {
	f := new(frames)
	f.young.Store(new(sync.Map))
	f.old.Store(new(sync.Map))
	return f
}

// of returns the frame for a message. Nobody may modify it.
func (f *frames) of(m *fanout.Message) []byte {
	if len(m.Data) == 0 || len(m.Data) > generation/16 {
		return frameOf(m) // there is no address, or too much to keep
	}
	young, key := f.young.Load(), &m.Data[0]
	known, ok := young.Load(key)
	if !ok {
		known, ok = f.old.Load().Load(key)
	}
	if ok && known.(*frame).is(m) {
		return known.(*frame).json
	}
	fresh := &frame{data: m.Data, at: m.Position, json: frameOf(m)}
	young.Store(key, fresh)
	size := int64(len(fresh.data) + len(fresh.json) + 200)
	if now := f.size.Add(size); now >= generation && now-size < generation {
		f.old.Store(young)
		f.young.Store(new(sync.Map))
		f.size.Store(0)
	}
	return fresh.json
}

// frameOf examines a message: one of ours passes as it is, anything else is
// shown as a stranger's text.
func frameOf(m *fanout.Message) []byte {
	if m.Sender != "" && isSaid(m.Data) {
		return withPosition(m.Data, m.Position)
	}
	return withPosition(encode(said{Room: m.Room, Text: validText(m.Data), Stranger: true}), m.Position)
}

// withPosition returns a document with the position from which a page that has
// seen it may go on. It stands before the last brace of a copy: nothing has to
// be encoded again, and the document stays as it was said. It is not empty.
func withPosition(doc []byte, at fanout.Position) []byte {
	if at.IsZero() {
		return doc
	}
	doc = doc[:bytes.LastIndexByte(doc, '}')]
	const most = len(`,"pos":"18446744073709551615-18446744073709551615"}`)
	b := append(make([]byte, 0, len(doc)+most), doc...)
	b = append(b, `,"pos":"`...)
	b = strconv.AppendUint(b, at.Epoch, 10)
	b = append(b, '-')
	b = strconv.AppendUint(b, at.Offset, 10)
	return append(b, `"}`...)
}

// isSaid reports whether data is a document of newSaid, of this version of the
// program or of one that says more. What a server has to say about a message,
// no document may say of itself: a false position would make pages miss what
// was said before it.
func isSaid(data []byte) bool {
	var d map[string]any // and not a struct, which would take TEXT for text
	if !utf8.Valid(data) || json.Unmarshal(data, &d) != nil {
		return false
	}
	_, from := d["from"].(string)
	_, text := d["text"].(string)
	_, stranger := d["stranger"]
	_, pos := d["pos"]
	return from && text && !stranger && !pos
}

// validText makes a stranger's bytes fit to be shown.
func validText(data []byte) string {
	if len(data) <= maxText {
		return strings.ToValidUTF8(string(data), "\uFFFD")
	}
	data = data[:maxText]
	for range utf8.UTFMax - 1 { // the cut may have gone through a character
		if r, _ := utf8.DecodeLastRune(data); r != utf8.RuneError {
			break
		}
		data = data[:len(data)-1]
	}
	return strings.ToValidUTF8(string(data), "\uFFFD") + "…"
}
