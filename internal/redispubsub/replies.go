package redispubsub

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/wire"
)

// This file reads the replies of our functions, as slots.go does. They are made
// from the contents of keys, which other programs may have written, so every
// number is checked.

const (
	// maxEpoch bounds epochs, as adapter.Historian says.
	maxEpoch = 1 << 44
	// maxOffset bounds offsets: the functions count no further.
	maxOffset = 1<<53 - 1
	// maxAge bounds the age of an entry, in ms, which is a time.Duration then.
	maxAge = 1 << 43
)

// asArray returns a result of the client's ToAny that has to be an array.
func asArray(reply any, err error) ([]any, error) {
	list, ok := reply.([]any)
	if err == nil && !ok {
		err = errReply
	}
	return list, err
}

// number reads an integer of at most most, which may come as a string.
func number(v any, most uint64) (n uint64, err error) {
	switch v := v.(type) {
	case int64:
		n = uint64(v)
	case string:
		n, err = strconv.ParseUint(v, 10, 64)
	default:
		err = errReply
	}
	if err == nil && n > most {
		err = fmt.Errorf("%w: %d is out of range", errReply, n)
	}
	return n, err
}

// parseHead reads the position that a reply begins with.
func parseHead(reply []any) (at adapter.Position, rest []any, err error) {
	if len(reply) < 2 {
		return at, nil, errReply
	}
	if at.Epoch, err = number(reply[0], maxEpoch); err != nil {
		return at, nil, err
	}
	if at.Offset, err = number(reply[1], maxOffset); err != nil {
		return at, nil, err
	}
	if at.Epoch == 0 {
		return at, nil, fmt.Errorf("%w: epoch 0", errReply)
	}
	return at, reply[2:], nil
}

// parseAppended reads the reply of the append function: the position and the
// number of subscribers, or -1.
func parseAppended(reply []any) (at adapter.Position, n int, err error) {
	at, rest, err := parseHead(reply)
	if err != nil {
		return at, 0, err
	}
	if len(rest) != 1 || at.Offset == 0 {
		return at, 0, errReply
	}
	count, err := integer(rest[0])
	if err == nil && (count < -1 || count > 1<<31) {
		err = errReply
	}
	return at, int(count), err
}

// parseProbe reads the reply of the probe: the time, and whether the server
// says in scripts who it is.
func parseProbe(reply []any) (asks bool, now int64, err error) {
	if len(reply) != 2 {
		return false, 0, errReply
	}
	at, err := number(reply[0], maxEpoch)
	if err != nil {
		return false, 0, err
	}
	yes, err := number(reply[1], 1)
	return yes == 1, int64(at), err
}

// parseMoved reads the note that a reply passes on, if it has one.
func parseMoved(reply []any) (seed []string, moved bool) {
	if len(reply) != 2 {
		return nil, false
	}
	note, ok := reply[1].([]any)
	if !ok || reply[0] != any("MOVED") {
		return nil, false
	}
	for _, v := range note {
		s, ok := v.(string)
		if !ok {
			return nil, false
		}
		seed = append(seed, s)
	}
	return seed, true
}

// parsePage reads the reply of the read function.
func parsePage(reply []any, q adapter.Query) (page adapter.Page, err error) {
	if len(reply) == 0 {
		return adapter.Page{First: 1}, nil
	}
	var rest []any
	if page.Head, rest, err = parseHead(reply); err != nil {
		return page, err
	}
	if len(rest) < 2 || len(rest)%3 != 2 {
		return page, errReply
	}
	chain, ok := rest[0].(string)
	if !ok {
		return page, errReply
	}
	if page.Before, err = parseChain(chain, page.Head); err != nil {
		return page, err
	}
	more, err := number(rest[1], 1)
	if err != nil {
		return page, err
	}
	page.More = more == 1
	page.First = page.Head.Offset + 1
	if err := parseFrames(&page, rest[2:]); err != nil {
		return page, err
	}
	// A frame may begin outside of the retention.
	if kept := uint64(max(0, q.Keep.Messages)); page.Head.Offset > kept {
		page.First = max(page.First, page.Head.Offset-kept+1)
	}
	return page, nil
}

// parseFrames reads the entries of a page. If entries have been deleted the
// page ends there, and the next one begins after them, so that they count as
// missing.
func parseFrames(page *adapter.Page, rest []any) error {
	var last adapter.Position
	for i := 0; i < len(rest); i += 3 {
		f, first, err := parseEntry(rest[i : i+3])
		switch {
		case err != nil:
			return err
		case page.Head.Before(f.At) || f.At.Offset > page.Head.Offset:
			return fmt.Errorf("%w: entry %v is beyond the head, %v", errReply, f.At, page.Head)
		case i == 0:
			page.First = first
		case f.At.Epoch < last.Epoch || first <= last.Offset:
			return fmt.Errorf("%w: entry %v follows %v", errReply, f.At, last)
		case first > last.Offset+1:
			page.More = true
			return nil
		}
		page.Frames = append(page.Frames, f)
		last = f.At
	}
	if len(page.Frames) > 0 && last.Offset < page.Head.Offset {
		page.More = true
	}
	return nil
}

// parseChain reads past epochs: "epoch:last:whole," each, in order and up to
// the head.
func parseChain(chain string, head adapter.Position) (past []adapter.PastEpoch, err error) {
	if chain == "" {
		return nil, nil
	}
	var before adapter.PastEpoch
	for one := range strings.SplitSeq(strings.TrimSuffix(chain, ","), ",") {
		f := strings.Split(one, ":")
		if len(f) != 3 {
			return nil, fmt.Errorf("%w: past epoch %q", errReply, one)
		}
		var p adapter.PastEpoch
		var err1, err2 error
		p.Epoch, err1 = strconv.ParseUint(f[0], 10, 64)
		p.Last, err2 = strconv.ParseUint(f[1], 10, 64)
		p.Whole = f[2] == "1"
		if err1 != nil || err2 != nil || p.Epoch <= before.Epoch || p.Epoch >= head.Epoch || p.Last < before.Last || p.Last > head.Offset {
			return nil, fmt.Errorf("%w: past epoch %q", errReply, one)
		}
		past = append(past, p)
		before = p
	}
	return past, nil
}

// parseEntry reads an entry: its ID, its age and number of messages, its frame.
func parseEntry(m []any) (f adapter.KeptFrame, first uint64, err error) {
	id, ok1 := m[0].(string)
	meta, ok2 := m[1].(string)
	frame, ok3 := m[2].(string)
	if !ok1 || !ok2 || !ok3 {
		return f, 0, errReply
	}
	var ok bool
	f.At.Epoch, f.At.Offset, ok = wire.ParsePosition(id)
	age, count, _ := strings.Cut(meta, " ")
	n, err1 := strconv.ParseUint(count, 10, 64)
	ms, err2 := strconv.ParseUint(age, 10, 64)
	if !ok || err1 != nil || err2 != nil || n == 0 || n > f.At.Offset ||
		f.At.Epoch == 0 || f.At.Epoch > maxEpoch || f.At.Offset > maxOffset {
		return f, 0, fmt.Errorf("%w: entry %q of %q", errReply, id, meta)
	}
	f.Age = time.Duration(min(ms, maxAge)) * time.Millisecond
	f.Frame = bytesOf(frame)
	return f, f.At.Offset - n + 1, nil
}
