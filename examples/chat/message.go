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

// maxText is how long a message may be, in bytes.
const maxText = 64 << 10

// maxDocument is how long the document of a message may be. What JSON makes longer of
// text without control characters it makes twice as long at most: quotes, backslashes,
// line ends, U+2028. The rest is for the name, the room and the keys.
const maxDocument = 2*maxText + 4<<10

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

// wrongWith says what is wrong with a text, which is valid UTF-8; "" if nothing is. A
// control character shows nothing, and is six times as long in JSON.
func wrongWith(text []byte) string {
	if i := bytes.IndexFunc(text, isControl); i >= 0 {
		r, _ := utf8.DecodeRune(text[i:])
		return fmt.Sprintf("it contains the control character %U", r)
	}
	return ""
}

// isControl reports whether a character is a control character that no text needs.
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

// documentOf examines a message, and returns it as pages get it: one of ours
// passes as it is, anything else is shown as a stranger's text.
func documentOf(m *fanout.Message) []byte {
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
	const most = len(`,"pos":"v1-18446744073709551615-18446744073709551615"}`)
	b := append(make([]byte, 0, len(doc)+most), doc...)
	b = append(b, `,"pos":"`...)
	b = append(b, at.String()...)
	return append(b, `"}`...)
}

// isSaid reports whether data is a document of newSaid, of this version of the
// program or of one that says more, and not longer than such a one is. What a server has to say about a message,
// no document may say of itself: a false position would make pages miss what
// was said before it.
func isSaid(data []byte) bool {
	if len(data) > maxDocument || !utf8.Valid(data) {
		return false
	}
	if isPlainlySaid(data) {
		return true
	}
	var d map[string]any // and not a struct, which would take TEXT for text
	if json.Unmarshal(data, &d) != nil {
		return false
	}
	_, from := d["from"].(string)
	_, text := d["text"].(string)
	_, stranger := d["stranger"]
	_, pos := d["pos"]
	return from && text && !stranger && !pos
}

// isPlainlySaid recognises what newSaid makes of text that needs no escapes. Most
// is like that, and it costs a tenth of understanding JSON.
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

// validText makes a stranger's bytes fit to be shown: valid UTF-8 without control
// characters, and not more than a page may say.
func validText(data []byte) string {
	cut := len(data) > maxText
	if cut {
		data = data[:maxText]
		for range utf8.UTFMax - 1 { // the cut may have gone through a character
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
