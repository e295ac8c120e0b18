package redispubsub

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/redis/rueidis"
)

const (
	// pageBytes bounds a page, by about that and a frame.
	pageBytes = 2 << 20
	// callAttempts is how often a function is called on servers that lack it.
	callAttempts = 3
)

// Append implements adapter.Historian.
func (e *Engine) Append(ctx context.Context, channel string, r adapter.Record) (at adapter.Position, receivers int, err error) {
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
	checksum := ""
	if len(r.Frame) > longFrame {
		checksum = wire.Checksum(r.Frame)
	}
	reply, sure, err := e.call(ctx, channel, appendFunction,
		rueidis.BinaryString(r.Frame), strconv.Itoa(r.Messages),
		strconv.Itoa(r.Keep.Messages), decimal(r.Keep.Age.Milliseconds()),
		publisher, strconv.FormatUint(r.Stream, 10), strconv.FormatUint(r.Seq+uint64(r.Messages), 10),
		e.mode.publishName(), channel, checksum)
	if err != nil {
		return at, 0, e.failed("publish", channel, err)
	}
	at, n, err := parseAppended(reply)
	switch {
	case err != nil:
		return at, 0, fmt.Errorf("%s: publish: reply of %s: %w", e.cfg.Name, appendFunction, err)
	case n == -1 && wire.IsFirst(r.Frame):
		// We have not sent it before, so it is not there.
		return at, 0, e.broken("publish", channel, "the note is further than this publisher has come")
	}
	if !sure && n <= 0 && e.mode.hasSlots() && e.mode.onlyHomeHears() {
		return e.announce(ctx, channel, at, n, r.Frame)
	}
	if n == 0 {
		e.resubscribeSoon(e.sub(channel))
	}
	return at, e.mode.receivers(n), nil
}

// longFrame is the length above which a frame needs a checksum.
const longFrame = 2048

// announce publishes a frame that is in the history, after it was kept by a node
// that may not own the slot yet: subscribers are at the owner. Those that have
// had later frames by then have noticed that this one is missing, and drop it.
// If the frame was there before (n is -1) the newest is published in its place,
// which shows subscribers what they lack.
func (e *Engine) announce(ctx context.Context, channel string, at adapter.Position, n int, frame []byte) (adapter.Position, int, error) {
	newest := adapter.KeptFrame{At: at, Frame: frame}
	if n < 0 {
		page, err := e.readPage(ctx, channel, adapter.Query{
			Since: adapter.Position{Epoch: at.Epoch, Offset: at.Offset - 1}, Limit: 1, Keep: everything,
		})
		if err != nil {
			return at, 0, errors.New(err.Error()) // it is kept, whatever else the error says
		}
		if len(page.Frames) == 0 {
			return at, n, nil
		}
		newest = page.Frames[0]
	}
	payload := wire.AppendLate(nil, newest.At.Epoch, newest.At.Offset, newest.Frame)
	heard, _, err := e.send(ctx, channel, payload)
	if err != nil {
		return at, 0, e.again(err)
	}
	if n < 0 {
		return at, n, nil
	}
	if heard == 0 {
		e.resubscribeSoon(e.sub(channel))
	}
	return at, heard, nil
}

// everything is more than any history keeps.
var everything = adapter.Retention{Messages: 1_000_000, Age: 366 * 24 * time.Hour}

// History implements adapter.Historian.
func (e *Engine) History(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
	if err := e.enter(ctx); err != nil {
		return adapter.Page{}, err
	}
	defer e.ops.Leave(1)
	return e.readPage(ctx, channel, q)
}

func (e *Engine) readPage(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
	bytes := pageBytes
	if q.Bytes > 0 {
		bytes = min(bytes, q.Bytes)
	}
	reply, _, err := e.call(ctx, channel, readFunction,
		strconv.FormatUint(q.Since.Epoch, 10), strconv.FormatUint(q.Since.Offset, 10), strconv.Itoa(q.Limit),
		strconv.Itoa(q.Keep.Messages), decimal(q.Keep.Age.Milliseconds()), strconv.Itoa(bytes))
	if err != nil {
		return adapter.Page{}, e.failed("history", channel, err)
	}
	page, err := parsePage(reply, q)
	if err != nil {
		return adapter.Page{}, e.broken("history", channel, err.Error())
	}
	return page, nil
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

// call calls a function where a channel lives, and gives it to the servers if
// they lack it. sure means that the node that answered owns the slot. Otherwise
// the client has found the way, which may have led to a node that is about to own
// it.
func (e *Engine) call(ctx context.Context, channel, function string, args ...string) (reply []any, sure bool, err error) {
	stream, note := wire.HistoryKeys(channel)
	build := func() rueidis.Completed {
		return e.client.B().Fcall().Function(function).Numkeys(2).Key(stream, note).Arg(args...).Build()
	}
	reply, err = e.loaded(ctx, func() rueidis.RedisResult {
		result, at := e.route(ctx, channel, build(), build)
		e.notice(result, channel, at)
		sure = at != "" || !e.mode.hasSlots()
		return result
	})
	if replyKind(err) != kindTryAgain {
		return reply, sure, err
	}
	reply, err = e.callOpen(ctx, channel, function, args)
	return reply, false, err
}

// callOpen is call while the slot is open: some of its keys are at the old owner
// and some at the new one, which may stay so. It names one key, whose place the
// client finds. If the stream has moved already, or has expired, the note
// follows: a first call takes it away, and the next one brings it along.
func (e *Engine) callOpen(ctx context.Context, channel, function string, args []string) (reply []any, err error) {
	stream, note := wire.HistoryKeys(channel)
	args = append(args[:len(args):len(args)], stream)
	for range callAttempts {
		reply, err = e.loaded(ctx, func() rueidis.RedisResult {
			result := e.ask(ctx, e.client.B().Fcall().Function(function).Numkeys(1).Key(note).Arg(args...).Build())
			e.notice(result, channel, "")
			return result
		})
		seed, moved := parseMoved(reply)
		if err != nil || !moved {
			return reply, err
		}
		args = append(args, seed...)
	}
	return nil, adapter.Unsent(errors.New("the keys of the history are on the move"))
}

// loaded makes a call, and gives the functions to servers that lack them.
func (e *Engine) loaded(ctx context.Context, call func() rueidis.RedisResult) ([]any, error) {
	for attempt := 1; ; attempt++ {
		loads := e.library.loads.Load()
		result := call()
		err := resultError(result)
		if err == nil {
			e.refusals.clear()
			return asArray(result.ToAny())
		}
		if !missing(err) || attempt == callAttempts {
			return nil, err
		}
		if err := e.load(ctx, loads); err != nil {
			return nil, adapter.Unsent(err)
		}
	}
}

// failed is classifyCall, with the errors of the functions themselves.
func (e *Engine) failed(what, channel string, err error) error {
	switch replyKind(err) {
	case kindBroken:
		return e.broken(what, channel, brokenText(redisError(err).Error()))
	case kindTryAgain: // it has not begun, though it may name the script
		return adapter.Unsent(fmt.Errorf("%s: %s: %w", e.cfg.Name, what, clean(err)))
	}
	return e.classifyCall(what, err)
}

// broken returns the error of a history whose keys have contents that are not
// ours. Nothing was sent.
func (e *Engine) broken(what, channel, text string) error {
	stream, _ := wire.HistoryKeys(channel)
	return adapter.Unsent(fmt.Errorf("%s: %s: %w %q: %s: %w", e.cfg.Name, what, adapter.ErrBrokenHistory, stream, text, adapter.ErrRefused))
}
