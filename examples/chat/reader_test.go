package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A wire is what a client sends, frame by frame.
type wire []byte

// frame appends a masked frame.
func (w wire) frame(first byte, payload string) wire {
	key := [4]byte{0x12, 0x34, 0x56, 0x78}
	w = append(w, first)
	switch n := len(payload); {
	case n < 126:
		w = append(w, masked|byte(n))
	case n < 1<<16:
		w = append(w, masked|126, byte(n>>8), byte(n))
	default:
		w = append(w, masked|127, 0, 0, 0, 0, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	w = append(w, key[:]...)
	for i := range len(payload) {
		w = append(w, payload[i]^key[i&3])
	}
	return w
}

// A reading is the result of reading some bytes.
type reading struct {
	texts []string
	pongs []string
	err   error
	waits int // calls of wait
	cost  int // bytes that were charged
}

// readAll reads to an error.
func readAll(in io.Reader, most int) (got reading) {
	r := &reader{
		in: bufio.NewReader(in), max: most,
		pong:   func(payload []byte) error { got.pongs = append(got.pongs, string(payload)); return nil },
		wait:   func() { got.waits++ },
		charge: func(n int) { got.cost += n },
	}
	for got.err == nil {
		var text []byte
		if text, got.err = r.message(); got.err == nil {
			got.texts = append(got.texts, string(text))
		}
	}
	return got
}

// The rules of RFC 6455, each with frames that break it or nearly do.
func TestReaderKeepsTheProtocol(t *testing.T) {
	unmasked := wire{0x81, 0x01, 'x'}
	whole := []string{"x"}
	for name, tc := range map[string]struct {
		sent   wire
		texts  []string
		pongs  []string
		status int // of the close frame that answers; 0: all was well; below 0: the page's own
	}{
		"a message":                         {sent: wire{}.frame(0x81, "x"), texts: whole},
		"an empty message":                  {sent: wire{}.frame(0x81, ""), texts: []string{""}},
		"messages of every length":          {sent: lengths(), texts: lengthsSaid()},
		"fragments":                         {sent: wire{}.frame(0x01, "a").frame(0x00, "b").frame(0x80, "c"), texts: []string{"abc"}},
		"empty fragments":                   {sent: wire{}.frame(0x01, "").frame(0x00, "").frame(0x80, ""), texts: []string{""}},
		"a character in two fragments":      {sent: wire{}.frame(0x01, "\xea\xb0").frame(0x80, "\x80"), texts: []string{"가"}},
		"a ping":                            {sent: wire{}.frame(0x89, "p").frame(0x81, "x"), texts: whole, pongs: []string{"p"}},
		"a long ping":                       {sent: wire{}.frame(0x89, strings.Repeat("p", 125)), pongs: []string{strings.Repeat("p", 125)}},
		"a ping in a message":               {sent: wire{}.frame(0x01, "a").frame(0x89, "").frame(0x80, "b"), texts: []string{"ab"}, pongs: []string{""}},
		"a pong that nobody asked for":      {sent: wire{}.frame(0x8a, "p").frame(0x81, "x"), texts: whole},
		"a close":                           {sent: wire{}.frame(0x88, "\x03\xe8bye").frame(0x81, "x"), status: -1000},
		"a close of an application":         {sent: wire{}.frame(0x88, "\x0f\xa0"), status: -4000},
		"a close without a status":          {sent: wire{}.frame(0x88, ""), status: -statusNone},
		"a close in a message":              {sent: wire{}.frame(0x01, "a").frame(0x88, "\x03\xe8"), status: -1000},
		"a close with half a status":        {sent: wire{}.frame(0x88, "\x03"), status: 1002},
		"a close that is not UTF-8":         {sent: wire{}.frame(0x88, "\x03\xe8\xff"), status: 1007},
		"a close with status 0":             {sent: wire{}.frame(0x88, "\x00\x00"), status: 1002},
		"a close with status 999":           {sent: wire{}.frame(0x88, "\x03\xe7"), status: 1002},
		"a close with status 1004":          {sent: wire{}.frame(0x88, "\x03\xec"), status: 1002},
		"a close with status 1005":          {sent: wire{}.frame(0x88, "\x03\xed"), status: 1002},
		"a close with status 1006":          {sent: wire{}.frame(0x88, "\x03\xee"), status: 1002},
		"a close with status 1015":          {sent: wire{}.frame(0x88, "\x03\xf7"), status: 1002},
		"a close with status 2999":          {sent: wire{}.frame(0x88, "\x0b\xb7"), status: 1002},
		"a close with status 5000":          {sent: wire{}.frame(0x88, "\x13\x88"), status: 1002},
		"no mask":                           {sent: unmasked, status: 1002},
		"no mask in a control frame":        {sent: wire{0x89, 0}, status: 1002},
		"a compressed message":              {sent: wire{}.frame(0xc1, "x"), status: 1002},
		"the second reserved bit":           {sent: wire{}.frame(0xa1, "x"), status: 1002},
		"the third reserved bit":            {sent: wire{}.frame(0x91, "x"), status: 1002},
		"a compressed ping":                 {sent: wire{}.frame(0xc9, "x"), status: 1002},
		"an unknown opcode":                 {sent: wire{}.frame(0x83, "x"), status: 1002},
		"another unknown opcode":            {sent: wire{}.frame(0x87, ""), status: 1002},
		"an unknown control opcode":         {sent: wire{}.frame(0x8b, ""), status: 1002},
		"the last control opcode":           {sent: wire{}.frame(0x8f, ""), status: 1002},
		"a continuation of nothing":         {sent: wire{}.frame(0x80, "x"), status: 1002},
		"a continuation after the end":      {sent: wire{}.frame(0x81, "x").frame(0x80, "y"), texts: whole, status: 1002},
		"a message in a message":            {sent: wire{}.frame(0x01, "x").frame(0x81, "y"), status: 1002},
		"a fragmented ping":                 {sent: wire{}.frame(0x09, "p"), status: 1002},
		"a ping that is too long":           {sent: wire{}.frame(0x89, strings.Repeat("p", 126)), status: 1002},
		"a close that is too long":          {sent: wire{}.frame(0x88, "\x03\xe8"+strings.Repeat("p", 124)), status: 1002},
		"a short length in two bytes":       {sent: wire{0x81, 0xfe, 0, 1, 0, 0, 0, 0, 'x'}, status: 1002},
		"a short length in eight bytes":     {sent: wire{0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0}, status: 1002},
		"a length beyond 2^63":              {sent: wire{0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, status: 1002},
		"a length of 2^62":                  {sent: wire{0x81, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, status: 1009},
		"binary":                            {sent: wire{}.frame(0x82, "x"), status: 1003},
		"the beginning of binary":           {sent: wire{}.frame(0x02, "x"), status: 1003},
		"not UTF-8":                         {sent: wire{}.frame(0x81, "\xff"), status: 1007},
		"half a character":                  {sent: wire{}.frame(0x81, "\xea\xb0"), status: 1007},
		"a surrogate":                       {sent: wire{}.frame(0x81, "\xed\xa0\x80"), status: 1007},
		"as long as it may be":              {sent: wire{}.frame(0x81, strings.Repeat("x", maxText)), texts: []string{strings.Repeat("x", maxText)}},
		"too long":                          {sent: wire{}.frame(0x81, strings.Repeat("x", maxText+1)), status: 1009},
		"too long in fragments":             {sent: wire{}.frame(0x01, strings.Repeat("x", maxText)).frame(0x80, "x"), status: 1009},
		"as many fragments as there may be": {sent: fragments(maxFragments), texts: []string{""}},
		"too many fragments":                {sent: fragments(maxFragments + 1), status: 1008},
	} {
		t.Run(name, func(t *testing.T) {
			got := readAll(bytes.NewReader(tc.sent), maxText)
			assert.Equal(t, tc.texts, got.texts)
			assert.Equal(t, tc.pongs, got.pongs)
			var bad *violation
			var bye *closed
			switch {
			case errors.As(got.err, &bad):
				assert.Equal(t, tc.status, bad.status, bad.reason)
				assert.LessOrEqual(t, len(bad.reason), maxControl-2)
				assert.NotEmpty(t, bad.reason)
			case errors.As(got.err, &bye):
				assert.Equal(t, tc.status, -bye.status)
			default:
				assert.ErrorIs(t, got.err, io.EOF)
				assert.Zero(t, tc.status)
			}
		})
	}
}

func lengths() (w wire) {
	for _, text := range lengthsSaid() {
		w = w.frame(0x81, text)
	}
	return w
}

func lengthsSaid() (texts []string) {
	for _, n := range []int{0, 1, 3, 4, 5, 125, 126, 127, 1<<12 - 1, 1 << 12, 1<<12 + 1, 1<<16 - 1, 1 << 16} {
		texts = append(texts, strings.Repeat("abcdefg", n/7+1)[:n])
	}
	return texts
}

// fragments is an empty message in n frames.
func fragments(n int) wire {
	w := wire{}.frame(0x01, "")
	for range n - 2 {
		w = w.frame(0x00, "")
	}
	return w.frame(0x80, "")
}

// A frame that announces much costs only what has arrived of it.
func TestReaderAllocatesForWhatHasCome(t *testing.T) {
	sent := wire{0x81, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4, 'x'} // 1 GiB
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got := readAll(bytes.NewReader(sent), 1<<40)
	runtime.ReadMemStats(&after)
	assert.ErrorIs(t, got.err, io.ErrUnexpectedEOF)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
}

// For one message, in however many frames and pings it arrives, the reader
// waits twice: for its beginning, and for its end.
func TestReaderWaitsForWholeMessages(t *testing.T) {
	sent := wire{}.frame(0x01, "a")
	for range 10 {
		sent = sent.frame(0x00, "b").frame(0x89, "")
	}
	assert.Equal(t, 3, readAll(bytes.NewReader(sent.frame(0x80, "c")), maxText).waits, "and once for the next")
	assert.Equal(t, 11, readAll(bytes.NewReader(fragmentsOfPings(10)), maxText).waits)
}

func fragmentsOfPings(n int) (w wire) {
	for range n {
		w = w.frame(0x89, "p")
	}
	return w
}

func TestReaderDiscards(t *testing.T) {
	page := wire{}.frame(0x82, strings.Repeat("x", 1000)).frame(0x81, "y").frame(0x88, "\x03\xeb")
	after := []byte("after")
	for name, tc := range map[string]struct {
		most uint64
		left int
	}{
		"to the close frame":    {1 << 20, len(after)},
		"no more than it may":   {500, 500 + len(page) - 8 - 1000 + len(after)},
		"nothing if it mustn't": {0, len(page) - 8 + len(after)},
	} {
		t.Run(name, func(t *testing.T) {
			in := bufio.NewReader(bytes.NewReader(append(slices.Clone(page), after...)))
			r := &reader{in: in, max: maxText, wait: func() {}, charge: func(int) {}}
			_, err := r.message()
			require.Error(t, err)
			r.discard(tc.most)
			rest, err := io.ReadAll(in)
			require.NoError(t, err)
			assert.Len(t, rest, tc.left)
		})
	}
}

func TestMeter(t *testing.T) {
	now := time.Now()
	m := meter{allowance: allowance{rate: 10, burst: 5}}
	for range 5 {
		assert.Zero(t, m.use(1, now), "a burst")
	}
	assert.Equal(t, 100*time.Millisecond, m.use(1, now), "what is more takes as long as it takes to be regained")
	assert.Equal(t, 200*time.Millisecond, m.use(1, now))
	now = now.Add(200 * time.Millisecond)
	assert.Equal(t, 100*time.Millisecond, m.use(1, now))
	now = now.Add(time.Hour)
	for range 5 {
		assert.Zero(t, m.use(1, now), "no more is saved than a burst")
	}
	assert.NotZero(t, m.use(1, now))
	assert.Equal(t, time.Duration(0), (&meter{allowance: allowance{rate: 1, burst: 1}}).use(0, now))
}

// Any input is read to an end, with the same result however it is split, and
// what is accepted is text that may be sent.
func FuzzReader(f *testing.F) {
	f.Add([]byte(lengths()[:3000]))
	f.Add([]byte(fragments(10)))
	f.Add([]byte(wire{}.frame(0x01, "a").frame(0x89, "p").frame(0x80, "b").frame(0x88, "\x03\xe8bye")))
	f.Add([]byte{0x81, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0x81, 0xfe, 0, 200, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, sent []byte) {
		const most = 1000
		got := readAll(bytes.NewReader(sent), most)
		total := 0
		for _, text := range got.texts {
			total += len(text)
			if len(text) > most || !utf8.ValidString(text) {
				t.Errorf("%d bytes passed: %q", len(text), text)
			}
		}
		for _, pong := range got.pongs {
			if total += len(pong); len(pong) > maxControl {
				t.Errorf("a pong of %d bytes", len(pong))
			}
		}
		if total > len(sent) {
			t.Errorf("%d bytes of %d that were sent", total, len(sent))
		}
		var bad *violation
		if errors.As(got.err, &bad) && (len(bad.reason) > maxControl-2 || bad.status < 1002) {
			t.Errorf("a close frame cannot say %v", bad)
		}
		again := readAll(iotest.OneByteReader(bytes.NewReader(sent)), most)
		assert.Equal(t, got.texts, again.texts)
		assert.Equal(t, got.pongs, again.pongs)
		assert.Equal(t, got.err, again.err)

		r := &reader{
			in: bufio.NewReader(bytes.NewReader(sent)), max: most, wait: func() {}, charge: func(int) {},
			pong: func([]byte) error { return nil },
		}
		for {
			if _, err := r.message(); err != nil {
				break
			}
		}
		r.discard(1 << 20)
	})
}

// Any message, in any fragments, with control frames between them, arrives.
func FuzzFragments(f *testing.F) {
	f.Add("안녕하세요", uint64(1))
	f.Add(strings.Repeat("x", 1000), uint64(2))
	f.Fuzz(func(t *testing.T, text string, seed uint64) {
		if !utf8.ValidString(text) || len(text) > maxText {
			t.Skip()
		}
		random := rand.New(rand.NewPCG(seed, 0))
		var sent wire
		first, rest := byte(opText), text
		for range 20 {
			n := random.IntN(len(rest) + 1)
			sent = sent.frame(first, rest[:n])
			first, rest = opContinuation, rest[n:]
			if random.IntN(2) == 0 {
				sent = sent.frame(0x89+byte(random.IntN(2)), "p")
			}
		}
		sent = sent.frame(final|first, rest).frame(0x81, "next")
		assert.Equal(t, []string{text, "next"}, readAll(bytes.NewReader(sent), maxText).texts)
	})
}
