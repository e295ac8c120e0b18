package redispubsub

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/redis/rueidis"
)

const (
	// pageBytes bounds a page, by about that and a frame.
	pageBytes = 2 << 20
	// callAttempts is how often a function is called on servers that lack it.
	callAttempts = 3
)

// Append implements fanout.Historian.
func (e *Engine) Append(ctx context.Context, channel string, r fanout.Record) (at fanout.Position, receivers int, err error) {
	if err := e.enter(ctx); err != nil {
		return at, 0, err
	}
	defer e.ops.Leave(1)
	if err := e.checkLength(ctx, len(r.Frame)); err != nil {
		return at, 0, err
	}
	publisher := ""
	if r.Publisher != "" {
		publisher = "p:" + r.Publisher
	}
	publish := "PUBLISH"
	if e.cfg.Sharded {
		publish = "SPUBLISH"
	}
	stream, note := wire.HistoryKeys(channel)
	reply, err := e.call(ctx, channel, func() rueidis.Completed {
		return e.client.B().Fcall().Function(appendFunction).Numkeys(3).Key(stream, note, channel).Arg(
			rueidis.BinaryString(r.Frame), strconv.Itoa(r.Messages),
			strconv.Itoa(r.Keep.Messages), decimal(r.Keep.Age.Milliseconds()), decimal(r.Time.UnixMilli()),
			publisher, strconv.FormatUint(r.Stream, 10), strconv.FormatUint(r.Seq+uint64(r.Messages), 10),
			publish, wire.Checksum(r.Frame)).Build()
	})
	if err != nil {
		return at, 0, e.classifyCall("publish", err)
	}
	at, rest, err := parseHead(reply)
	if err != nil || len(rest) != 1 {
		return at, 0, fmt.Errorf("%s: publish: reply of %s: %w", e.cfg.Name, appendFunction, errors.Join(err, errReply))
	}
	n, err := rest[0].AsInt64()
	if err != nil {
		return at, 0, fmt.Errorf("%s: publish: reply of %s: %w", e.cfg.Name, appendFunction, err)
	}
	if n == 0 {
		e.mistrust(e.sub(channel))
	}
	if e.cluster && !e.cfg.Sharded {
		n = -1 // it counts the subscribers of one node
	}
	return at, int(n), nil
}

// mistrust has our own subscription confirmed again after nobody has got a frame
// that is kept. The receiver reads it in the history then. Most likely the slot
// is moving, and the old home is about to say so: it gets the time for that.
func (e *Engine) mistrust(s *sub) {
	home, on, confirms := s.state()
	if !on || home == nil || (e.cluster && !e.cfg.Sharded) || !s.mistrusted.CompareAndSwap(false, true) {
		return
	}
	e.wg.Go(func() {
		defer s.mistrusted.Store(false)
		if !e.sleep(e.ctx, farewell) {
			return
		}
		if l, on, now := s.state(); on && now == confirms && l == home {
			home.doubt(s)
			e.topology.doubt(home)
			e.inspector.suspect(home.addr)
		}
	})
}

// History implements fanout.Historian.
func (e *Engine) History(ctx context.Context, channel string, q fanout.Query) (fanout.Page, error) {
	if err := e.enter(ctx); err != nil {
		return fanout.Page{}, err
	}
	defer e.ops.Leave(1)
	stream, note := wire.HistoryKeys(channel)
	bytes := pageBytes
	if q.Bytes > 0 {
		bytes = min(bytes, q.Bytes)
	}
	reply, err := e.call(ctx, channel, func() rueidis.Completed {
		return e.client.B().Fcall().Function(readFunction).Numkeys(2).Key(stream, note).Arg(
			strconv.FormatUint(q.Since.Epoch, 10), strconv.FormatUint(q.Since.Offset, 10), strconv.Itoa(q.Limit),
			strconv.Itoa(q.Keep.Messages), decimal(q.Keep.Age.Milliseconds()), decimal(q.Time.UnixMilli()),
			strconv.Itoa(bytes)).Build()
	})
	if err != nil {
		return fanout.Page{}, e.classifyCall("history", err)
	}
	page, err := parsePage(reply, q)
	if err != nil {
		return page, fmt.Errorf("%s: history: reply of %s: %w", e.cfg.Name, readFunction, err)
	}
	return page, nil
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

// call calls a function where a channel lives, and gives it to the servers if
// they lack it.
func (e *Engine) call(ctx context.Context, channel string, build func() rueidis.Completed) ([]rueidis.RedisMessage, error) {
	for attempt := 1; ; attempt++ {
		loads := e.library.loads.Load()
		result, at := e.route(ctx, channel, build(), build)
		e.notice(result, channel, at)
		err := resultError(result)
		if err == nil {
			e.refusals.clear()
			return result.ToArray()
		}
		if !missing(err) || attempt == callAttempts {
			return nil, err
		}
		if err := e.load(ctx, loads); err != nil {
			return nil, fmt.Errorf("%w: %w", fanout.ErrUnsent, err)
		}
	}
}

var errReply = errors.New("unexpected form")

// parseHead reads the position that a reply begins with.
func parseHead(reply []rueidis.RedisMessage) (at fanout.Position, rest []rueidis.RedisMessage, err error) {
	if len(reply) < 2 {
		return at, nil, errReply
	}
	at.Epoch, err = number(&reply[0])
	if err == nil {
		at.Offset, err = number(&reply[1])
	}
	return at, reply[2:], err
}

// number reads an integer that may come as a string.
func number(m *rueidis.RedisMessage) (uint64, error) {
	if s, err := m.ToString(); err == nil {
		return strconv.ParseUint(s, 10, 64)
	}
	n, err := m.AsInt64()
	return uint64(n), err
}

// parsePage reads the reply of the read function.
func parsePage(reply []rueidis.RedisMessage, q fanout.Query) (page fanout.Page, err error) {
	if len(reply) == 0 {
		return fanout.Page{First: 1}, nil
	}
	var rest []rueidis.RedisMessage
	if page.Head, rest, err = parseHead(reply); err != nil {
		return page, err
	}
	if len(rest) < 2 || len(rest)%3 != 2 {
		return page, errReply
	}
	chain, err := rest[0].ToString()
	if err != nil {
		return page, err
	}
	if page.Before, err = parseChain(chain); err != nil {
		return page, err
	}
	more, err := rest[1].AsInt64()
	if err != nil {
		return page, err
	}
	page.More = more == 1
	page.First = page.Head.Offset + 1
	for i := 2; i < len(rest); i += 3 {
		f, first, err := parseEntry(rest[i : i+3])
		if err != nil {
			return page, err
		}
		if i == 2 {
			page.First = first
		}
		page.Frames = append(page.Frames, f)
	}
	// A frame may reach over the bound.
	if kept := uint64(q.Keep.Messages); page.Head.Offset > kept {
		page.First = max(page.First, page.Head.Offset-kept+1)
	}
	return page, nil
}

// parseChain reads past epochs: "epoch:last:whole," each.
func parseChain(chain string) (past []fanout.PastEpoch, err error) {
	for one := range strings.SplitSeq(strings.TrimSuffix(chain, ","), ",") {
		if one == "" {
			continue
		}
		f := strings.Split(one, ":")
		if len(f) != 3 {
			return nil, errReply
		}
		var p fanout.PastEpoch
		var err1, err2 error
		p.Epoch, err1 = strconv.ParseUint(f[0], 10, 64)
		p.Last, err2 = strconv.ParseUint(f[1], 10, 64)
		p.Whole = f[2] == "1"
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		past = append(past, p)
	}
	return past, nil
}

// parseEntry reads an entry: its ID, its time and number of messages, its frame.
func parseEntry(m []rueidis.RedisMessage) (f fanout.KeptFrame, first uint64, err error) {
	id, err1 := m[0].ToString()
	meta, err2 := m[1].ToString()
	frame, err3 := m[2].ToString()
	if err := errors.Join(err1, err2, err3); err != nil {
		return f, 0, err
	}
	var ok bool
	f.At.Epoch, f.At.Offset, ok = wire.ParsePosition(id)
	_, count, _ := strings.Cut(meta, " ")
	n, err := strconv.ParseUint(count, 10, 64)
	if !ok || err != nil || n == 0 || n > f.At.Offset {
		return f, 0, fmt.Errorf("%w: entry %q of %q", errReply, id, meta)
	}
	f.Frame = bytesOf(frame)
	return f, f.At.Offset - n + 1, nil
}
