package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"
)

// The parts of a frame's first two bytes:
// https://www.rfc-editor.org/rfc/rfc6455#section-5.2.
const (
	final    = 0x80 // the message ends with this frame
	reserved = 0x70 // for extensions, of which we have none
	masked   = 0x80 // as all frames of a client must be

	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
	control        = 0x8 // all opcodes from here on are of control frames

	maxControl = 125 // bytes in a control frame
)

// The status codes of close frames that we send.
const (
	statusGoingAway       = 1001
	statusProtocolError   = 1002
	statusUnsupportedData = 1003
	statusNone            = 1005 // a close frame without a status; never sent
	statusInvalidData     = 1007
	statusPolicy          = 1008
	statusTooBig          = 1009
	statusKicked          = 4001 // of this program; see serveKick
)

// maxFragments is the maximum number of frames of a message. A client that
// splits the longest message into parts of 64 bytes needs that many.
const maxFragments = 1024

// A violation is an error of the client. The connection ends with a close frame
// that contains it.
type violation struct {
	status int
	reason string
}

func (v *violation) Error() string { return fmt.Sprintf("%s (status %d)", v.reason, v.status) }

func violated(reason string) error { return &violation{statusProtocolError, reason} }

// A closed is the error of a reader that has read a close frame.
type closed struct {
	status int // statusNone: the frame has none
	reason string
}

func (c *closed) Error() string {
	if c.reason == "" {
		return fmt.Sprintf("closed by the page with status %d", c.status)
	}
	return fmt.Sprintf("closed by the page with status %d: %q", c.status, c.reason)
}

// A reader reads the frames that a client sends, and makes messages of them, as
// RFC 6455 describes. It allocates for bytes that have arrived, never for bytes
// that are announced.
//
// It has no clock and no connection of its own: those are its functions.
type reader struct {
	in   *bufio.Reader
	max  int                        // bytes of a message
	pong func(payload []byte) error // answers a ping

	// wait is called before the reader waits for a frame between messages or
	// for the first frame of a message, and again when a message has begun:
	// from then on there is one deadline for the whole message.
	wait func()
	// charge is called for each frame, before the reader waits for its payload.
	// It may wait.
	charge func(bytes int)

	text      []byte // of the current message
	fragments int    // of the current message that have arrived; 0: there is none
	left      uint64 // bytes of the current frame that have not arrived
	ctl       [maxControl]byte
}

// A header is the header of a frame.
type header struct {
	first  byte
	masked bool
	key    [4]byte
	length uint64
	long   bool // the length could have been written in fewer bytes
}

func (h *header) opcode() byte { return h.first & 0x0f }
func (h *header) final() bool  { return h.first&final != 0 }

// readHeader reads the header of a frame without judging it.
func readHeader(in *bufio.Reader) (h header, err error) {
	var b [8]byte
	if _, err := io.ReadFull(in, b[:2]); err != nil {
		return h, err
	}
	h.first, h.masked = b[0], b[1]&masked != 0
	h.length = uint64(b[1] &^ masked)
	switch h.length {
	case 126:
		_, err = io.ReadFull(in, b[:2])
		h.length = uint64(binary.BigEndian.Uint16(b[:]))
		h.long = h.length < 126
	case 127:
		_, err = io.ReadFull(in, b[:])
		h.length = binary.BigEndian.Uint64(b[:])
		h.long = h.length < 1<<16
	}
	if err == nil && h.masked {
		_, err = io.ReadFull(in, h.key[:])
	}
	return h, whole(err)
}

// whole makes the end of the input an error, inside something that has begun.
func whole(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// message returns the text of the next message. It is valid UTF-8, and stays
// valid until the next call. Control frames before and inside the message are
// answered.
//
// The error is a *violation or a *closed, that of the connection, or that of
// pong.
func (r *reader) message() ([]byte, error) {
	if cap(r.text) > 4<<10 {
		r.text = nil // a page that sends nothing does not need it
	}
	r.text, r.fragments = r.text[:0], 0
	for {
		if r.fragments == 0 {
			r.wait()
		}
		h, err := readHeader(r.in)
		if err != nil {
			return nil, err
		}
		r.left = h.length
		if err := r.judge(&h); err != nil {
			return nil, err
		}
		r.charge(int(h.length))
		if h.opcode() >= control {
			if err := r.control(&h); err != nil {
				return nil, err
			}
			continue
		}
		if r.fragments++; r.fragments == 1 {
			r.wait()
		}
		if err := r.append(&h); err != nil {
			return nil, err
		}
		switch {
		case !h.final():
		case !utf8.Valid(r.text):
			return nil, &violation{statusInvalidData, "a message must be valid UTF-8"}
		default:
			return r.text, nil
		}
	}
}

// judge returns what is wrong with a frame, before its payload is waited for.
// Frames that it accepts are no longer than a message may be.
func (r *reader) judge(h *header) error {
	switch op := h.opcode(); {
	case h.first&reserved != 0:
		return violated("a reserved bit is set, and no extension was agreed on")
	case !h.masked:
		return violated("a client must mask its frames")
	case h.length >= 1<<63:
		return violated("the length of a frame is not a number")
	case h.long:
		return violated("the length of a frame must be written in as few bytes as it takes")
	case op >= control:
		return judgeControl(h)
	case op > opBinary:
		return violated("the opcode of a frame is unknown")
	case op == opContinuation && r.fragments == 0:
		return violated("there is no message to continue")
	case op != opContinuation && r.fragments > 0:
		return violated("the message before has not ended")
	case op == opBinary:
		return &violation{statusUnsupportedData, "only text frames are messages here"}
	case h.length > uint64(r.max-len(r.text)):
		return &violation{statusTooBig, fmt.Sprintf("a message may have %d bytes at most", r.max)}
	case r.fragments >= maxFragments:
		return &violation{statusPolicy, fmt.Sprintf("a message may come in %d frames at most", maxFragments)}
	}
	return nil
}

func judgeControl(h *header) error {
	switch {
	case h.opcode() > opPong:
		return violated("the opcode of a control frame is unknown")
	case !h.final():
		return violated("a control frame must not be fragmented")
	case h.length > maxControl:
		return violated("a control frame may have 125 bytes at most")
	}
	return nil
}

// append adds a frame's payload to the message.
func (r *reader) append(h *header) error {
	const part = 4 << 10
	for at := 0; r.left > 0; {
		n := int(min(r.left, part))
		r.text = append(r.text, make([]byte, n)...)
		b := r.text[len(r.text)-n:]
		if err := r.fill(b); err != nil {
			return err
		}
		unmask(b, h.key, at)
		at += n
	}
	return nil
}

// fill reads bytes of the current frame.
func (r *reader) fill(b []byte) error {
	n, err := io.ReadFull(r.in, b)
	r.left -= uint64(n)
	return whole(err)
}

// unmask unmasks bytes that begin at a place in their frame.
func unmask(b []byte, key [4]byte, at int) {
	for i := range b {
		b[i] ^= key[(at+i)&3]
	}
}

// control reads a control frame, and answers a ping.
func (r *reader) control(h *header) error {
	b := r.ctl[:h.length]
	if err := r.fill(b); err != nil {
		return err
	}
	unmask(b, h.key, 0)
	switch h.opcode() {
	case opPing:
		return r.pong(b)
	case opClose:
		return closeOf(b)
	}
	return nil
}

// closeOf reads the payload of a close frame.
func closeOf(b []byte) error {
	if len(b) == 0 {
		return &closed{status: statusNone}
	}
	if len(b) == 1 {
		return violated("a close frame has no status code of two bytes")
	}
	c := &closed{status: int(binary.BigEndian.Uint16(b)), reason: string(b[2:])}
	switch {
	case !utf8.ValidString(c.reason):
		return &violation{statusInvalidData, "the reason in a close frame must be valid UTF-8"}
	case c.status >= 1000 && c.status <= 1003, c.status >= 1007 && c.status <= 1014, c.status >= 3000 && c.status <= 4999:
		return c
	}
	return violated("a close frame has a status code that must not be sent")
}

// discard reads, after an error, up to the client's close frame, and about most
// bytes at most. A connection that is closed with unread input is reset, and
// then its client may not see our close frame.
func (r *reader) discard(most uint64) {
	for {
		n, err := io.CopyN(io.Discard, r.in, int64(min(r.left, most)))
		if err != nil || r.left > most {
			return
		}
		most -= uint64(n)
		h, err := readHeader(r.in)
		if err != nil || most < 16 {
			return
		}
		r.left, most = h.length, most-16
		if h.opcode() == opClose {
			most = min(most, maxControl)
			_, _ = io.CopyN(io.Discard, r.in, int64(min(r.left, most)))
			return
		}
	}
}

// An allowance is a rate, and a burst that is available after a pause.
type allowance struct {
	rate  float64 // a second
	burst float64
}

// A meter says how long a client with an allowance has to wait.
type meter struct {
	allowance
	debt float64 // what was used and has not been regained; up to the burst it causes no wait
	at   time.Time
}

// use takes n, and returns how long to wait before anything else is done.
func (m *meter) use(n float64, now time.Time) time.Duration {
	if !m.at.IsZero() {
		m.debt = max(0, m.debt-m.rate*now.Sub(m.at).Seconds())
	}
	m.at = now
	m.debt += n
	if m.debt <= m.burst {
		return 0
	}
	return time.Duration((m.debt - m.burst) / m.rate * float64(time.Second))
}
