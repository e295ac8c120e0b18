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
	// pageBytes bounds a page: a frame is added only while the page is smaller.
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
	reply, sure, err := e.call(ctx, channel, appendProcedure,
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
		return at, 0, fmt.Errorf("%s: publish: reply of %s: %w", e.cfg.Name, appendProcedure.function, err)
	case n == -1 && wire.IsFirst(r.Frame):
		// We have not sent it before, so the history cannot have it.
		return at, 0, e.broken("publish", channel, "the note is further than this publisher has come")
	}
	if !sure && n <= 0 && e.mode.hasSlots() && e.mode.onlyHomeHears() {
		return e.announce(ctx, channel, at, n, r.Frame)
	}
	if n == 0 {
		e.resubscribeSoon(e.sub(channel))
	}
	return at, e.receivers(channel, n), nil
}

// longFrame is the length above which a frame needs a checksum.
const longFrame = 2048

// announce publishes a frame that is in the history, after a node has kept it
// that may not own the slot yet: the subscribers are at the owner. Subscribers
// that have had later frames have noticed that this one is missing, and drop
// it. If the frame was in the history before (n is -1) the newest one is
// published instead, which shows subscribers what they lack.
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
	return at, e.receivers(channel, heard), nil
}

// everything is a retention that covers every history.
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
	reply, _, err := e.call(ctx, channel, readProcedure,
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

// An invocation is a call of a procedure for a channel.
type invocation struct {
	procedure *procedure
	channel   string
	keys      []string
	args      []string
	// sure means that the node that answered owns the slot. Otherwise the
	// client has chosen the node, which may be about to own the slot.
	sure bool
}

// command returns the command of the call, for a node that keeps histories in
// some way.
func (c *invocation) command(b rueidis.Builder, s *keeping) rueidis.Completed {
	if s.way == byFunction {
		return c.procedure.fcall(b, c.keys, c.args)
	}
	return c.procedure.evalsha(b, c.keys, c.args, s.who)
}

// call makes a call at the home of a channel, and loads into the servers what
// they lack for it. See invocation.sure for the second result.
func (e *Engine) call(ctx context.Context, channel string, p *procedure, args ...string) (reply []any, sure bool, err error) {
	stream, note := wire.HistoryKeys(channel)
	c := &invocation{procedure: p, channel: channel, keys: []string{stream, note}, args: args}
	reply, err = e.loaded(ctx, c)
	if replyKind(err) != kindTryAgain {
		return reply, c.sure, err
	}
	reply, err = e.callOpen(ctx, channel, p, args)
	return reply, false, err
}

// callOpen is call while the slot is open: some of its keys are at the old
// owner and some at the new one, which may last. The call names one key, and
// goes where that is. If the stream has already moved, or has expired, the note
// moves too: a first call returns it, the next one parks it at the new owner,
// and the one after that deletes it at the old one. Whatever reply is lost, the
// next call finds the note: see open in history.lua.
func (e *Engine) callOpen(ctx context.Context, channel string, p *procedure, args []string) (reply []any, err error) {
	stream, note := wire.HistoryKeys(channel)
	args = append(args[:len(args):len(args)], stream)
	at := func(key string, args []string) ([]any, error) {
		return e.loaded(ctx, &invocation{procedure: p, channel: channel, keys: []string{key}, args: args})
	}
	isParked := append(args[:len(args):len(args)], "parked", "")
	for range callAttempts + 1 {
		reply, err = at(note, args)
		seed, moved := parseMoved(reply)
		if err != nil || !moved {
			return reply, err
		}
		if len(seed) > 0 {
			if _, err := at(stream+":moved", append(args[:len(args):len(args)], seed...)); err != nil {
				return nil, err
			}
			args = isParked
		}
	}
	return nil, adapter.Unsent(errors.New("the keys of the history are on the move"))
}

// loaded makes a call, and loads what it needs into servers that lack it.
func (e *Engine) loaded(ctx context.Context, c *invocation) ([]any, error) {
	for attempt := 1; ; attempt++ {
		loads := e.library.loads.Load()
		k, s, err := e.keepingOf(ctx, c.channel)
		if err != nil {
			return nil, err
		}
		result := e.invoke(ctx, c, k, s)
		err = resultError(result)
		switch {
		case err == nil:
			e.refusals.clear()
			return asArray(result.ToAny())
		case attempt == callAttempts:
			return nil, err
		case missing(err):
			if err := e.load(ctx, loads, s.way == byFunction); err != nil {
				return nil, adapter.Unsent(err)
			}
		case !k.differs(ctx, s, err):
			return nil, err
		}
	}
}

// invoke makes a call once.
func (e *Engine) invoke(ctx context.Context, c *invocation, k *keeper, s *keeping) rueidis.RedisResult {
	if s.conn != nil {
		return e.invokeBound(ctx, c, k, s)
	}
	build := func() rueidis.Completed { return c.command(e.client.B(), s) }
	if len(c.keys) == 1 { // the client finds out where that key is
		result := e.ask(ctx, build())
		e.notice(result, c.channel, "")
		return result
	}
	result, at := e.route(ctx, c.channel, build(), build)
	e.notice(result, c.channel, at)
	c.sure = at != "" || !e.mode.hasSlots()
	return result
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
