package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/fanoutgo/fanout"
)

// maxText is the maximum length of a message, in bytes.
const maxText = 64 << 10

// maxDocument is the maximum length of the document of a message. JSON makes
// text without control characters at most twice as long: quotes, backslashes,
// line ends, U+2028. The rest is for the name, the room and the keys.
const maxDocument = 2*maxText + 4<<10

// A said is a message as pages get it, except for its position, which is known
// only when the message has come back from the backend (withPosition). It is
// also what is published: the publisher encodes it once, and all others pass
// the bytes on.
type said struct {
	From string `json:"from"`
	Text string `json:"text"`
	Room string `json:"room"`
	Time string `json:"time,omitempty"` // when it was said, as RFC 3339 in UTC

	// Stranger marks a message that does not come from a chat like this one
	// but, for example, from redis-cli. Then From is empty, since the name of
	// the sender was not checked.
	Stranger bool `json:"stranger,omitempty"`
}

// A missing is the frame for a gap: messages of the room did not reach this
// page. It has no text, so it cannot be mistaken for a message.
type missing struct {
	Gap     int  `json:"gap"`
	Unknown bool `json:"unknown"` // there may be more than Gap
}

// A failure is the frame for a request of the page that failed.
type failure struct {
	Error string `json:"error"`
}

// wrongWith returns what is wrong with a text, which is valid UTF-8; "" if
// nothing is. Control characters are invisible, and six times as long in JSON.
func wrongWith(text []byte) string {
	if i := bytes.IndexFunc(text, isControl); i >= 0 {
		r, _ := utf8.DecodeRune(text[i:])
		return fmt.Sprintf("it contains the control character %U", r)
	}
	return ""
}

// isControl reports whether a character is a control character that no text
// needs.
func isControl(r rune) bool {
	return unicode.IsControl(r) && r != '\n' && r != '\r' && r != '\t'
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

// encode returns v as JSON. Pages display text as text, so <, > and & need no
// escape, which would make them six times as long.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // cannot happen: v has only strings, numbers and booleans
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// documentOf examines a message, and returns it as pages get it: a change of
// who is here as people, a message of ours as it is, any other data as a
// stranger's text.
func documentOf(m *fanout.Message) []byte {
	if c, ok := m.Presence(); ok {
		return peopleOf(c)
	}
	if m.Sender != "" && isSaid(m.Data) {
		return withPosition(m.Data, m.Position)
	}
	return withPosition(encode(said{Room: m.Room, Text: validText(m.Data), Stranger: true}), m.Position)
}

// withPosition returns a document with the position from which a page that has
// seen it may resume. It inserts the position before the last brace of a copy,
// so that nothing has to be encoded again. The document is not empty and is not
// modified.
func withPosition(doc []byte, at fanout.Position) []byte {
	if at.IsZero() {
		return doc
	}
	doc = doc[:bytes.LastIndexByte(doc, '}')]
	const most = len(`,"pos":"v1-18446744073709551615-18446744073709551615"}`)
	b := append(make([]byte, 0, len(doc)+most), doc...)
	b = append(b, `,"pos":"`...)
	b = append(b, at.String()...)
	return append(b, `"}`...)
}

// isSaid reports whether data is a document of newSaid, of this version of the
// program or a later one with more fields, and not longer than those are. It
// must not contain what only a server may say about a message: a false position
// would make pages miss messages.
func isSaid(data []byte) bool {
	if len(data) > maxDocument || !utf8.Valid(data) {
		return false
	}
	if isPlainlySaid(data) {
		return true
	}
	var d map[string]any // not a struct, which would also accept TEXT as text
	if json.Unmarshal(data, &d) != nil {
		return false
	}
	_, from := d["from"].(string)
	_, text := d["text"].(string)
	_, stranger := d["stranger"]
	_, pos := d["pos"]
	return from && text && !stranger && !pos
}

// isPlainlySaid recognises documents of newSaid whose text needs no escapes.
// Most are like that, and it costs a tenth of parsing JSON.
func isPlainlySaid(doc []byte) bool {
	for _, key := range []string{`{"from":"`, `","text":"`, `","room":"`, `","time":"`} {
		if !bytes.HasPrefix(doc, []byte(key)) {
			return false
		}
		doc = doc[len(key):]
		end := 0
		for end < len(doc) && doc[end] >= ' ' && doc[end] != '"' && doc[end] != '\\' {
			end++
		}
		doc = doc[end:]
	}
	return string(doc) == `"}`
}

// validText makes a stranger's bytes displayable: valid UTF-8 without control
// characters, and no longer than a page's message may be.
func validText(data []byte) string {
	cut := len(data) > maxText
	if cut {
		data = data[:maxText]
		for range utf8.UTFMax - 1 { // a character may have been cut in two
			if r, _ := utf8.DecodeLastRune(data); r != utf8.RuneError {
				break
			}
			data = data[:len(data)-1]
		}
	}
	text := strings.ToValidUTF8(string(data), "\uFFFD")
	text = strings.Map(func(r rune) rune {
		if isControl(r) {
			return '\uFFFD'
		}
		return r
	}, text)
	if cut {
		return text + "…"
	}
	return text
}
