package nats

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// appendIn is how long one Append may take.
const appendIn = flushIn

// errSilent means that the stream did not answer: it may or may not have kept
// the record.
var errSilent = errors.New("the stream does not answer")

// errRace means that another hub has appended to the room meanwhile.
var errRace = errors.New("other hubs publish to the room at the same time")

// Append implements adapter.Historian. The number of receivers is always -1. A
// cluster that is not ready, for example because it has too few servers for the
// replicas of a new stream, is asked for up to 5 s.
func (a *Adapter) Append(ctx context.Context, channel string, r adapter.Record) (at adapter.Position, receivers int, err error) {
	at, err = a.keepRecord(ctx, channel, &r)
	if err != nil {
		return adapter.Position{}, 0, fmt.Errorf("nats: append to %q: %w", channel, err)
	}
	return at, -1, nil
}

// keepRecord appends a record. If the stream once did not answer, and it cannot
// be found out whether it kept the record, the error does not wrap
// adapter.ErrUnsent, whatever later attempts returned.
func (a *Adapter) keepRecord(ctx context.Context, channel string, r *adapter.Record) (adapter.Position, error) {
	at, unclear, err := a.tryRecord(ctx, channel, r)
	switch {
	case err == nil || !unclear || !errors.Is(err, adapter.ErrUnsent):
		return at, err
	case ctx.Err() != nil:
		return at, fmt.Errorf("%w: %w (%v)", errSilent, context.Cause(ctx), err)
	}
	return at, fmt.Errorf("%w (%v)", errSilent, err)
}

func (a *Adapter) tryRecord(ctx context.Context, channel string, r *adapter.Record) (at adapter.Position, unclear bool, err error) {
	nc, err := a.ready(ctx)
	if err != nil {
		return at, unclear, fmt.Errorf("%w: %w", adapter.ErrUnsent, err)
	}
	ctx, cancel := a.bound(ctx)
	defer cancel()
	ctx, cancelIn := context.WithTimeout(ctx, appendIn)
	defer cancelIn()
	p := partitionOf(channel, a.o.Partitions)
	races, fresh := 0, false
	defer func() {
		if races >= claimEvery {
			a.claim(channel, 0)
		}
	}()
	for {
		if races < yieldFor {
			a.claims.yield(ctx, channel)
		}
		s, h, err := a.streamAndHead(ctx, nc, p, channel, fresh)
		if err != nil {
			return at, unclear, fmt.Errorf("%w: %w", adapter.ErrUnsent, a.cause(ctx, err))
		}
		next := s.continues(h, channel)
		next.messages, next.frame = uint64(r.Messages), r.Frame
		next.at.Offset += next.messages
		if ctx.Err() != nil {
			return at, unclear, fmt.Errorf("%w: %w", adapter.ErrUnsent, a.cause(ctx, ctx.Err()))
		}
		began := time.Now()
		ack, err := a.store(ctx, nc, p, h.seq, &next, r)
		switch {
		case errors.Is(err, errRace):
			if races++; races%claimEvery == 0 {
				a.claim(channel, claimTime(time.Since(began)))
			}
			if fresh, err = a.awaitWinner(ctx, p, channel, h.seq, races); err != nil {
				return at, unclear, fmt.Errorf("%w: %w: %d attempts came second: %w", adapter.ErrUnsent, errRace, races, err)
			}
			continue
		case errors.Is(err, errSilent) && r.Publisher != "" && ctx.Err() == nil:
			unclear, fresh = true, true // if the stream has the record, it recognises the repeated one
			continue
		case err != nil:
			a.heads.doubt(channel)
			return at, unclear, a.cause(ctx, err)
		}
		a.saw(p, ack.Sequence)
		a.streams.complete(channel)
		if ack.Duplicate {
			at, err = a.position(ctx, nc, p, channel, ack.Sequence)
			return at, true, err
		}
		a.heads.appended(channel, head{record: next, seq: ack.Sequence, time: time.Now()})
		a.trim(nc, p, channel, &next, ack.Sequence, r.Keep)
		return next.at, false, nil
	}
}

// position returns the position of a record that was kept before, or of the
// channel's last record if that one has been removed since.
func (a *Adapter) position(ctx context.Context, nc *nats.Conn, p int, channel string, seq uint64) (adapter.Position, error) {
	h, err := a.get(ctx, nc, p, channel, map[string]any{"seq": seq})
	if err == nil && h.seq == 0 {
		h, err = a.last(ctx, nc, p, channel)
	}
	switch {
	case err != nil:
		return adapter.Position{}, a.cause(ctx, err)
	case h.seq == 0:
		return adapter.Position{}, errors.New("the record was kept, and is removed already")
	}
	return h.at, nil
}

// cause returns err, or why ctx has ended if err is a consequence of that.
func (a *Adapter) cause(ctx context.Context, err error) error {
	if ctx.Err() == nil || errors.Is(err, adapter.ErrRefused) {
		return err
	}
	if health := a.Health(); health != nil {
		return fmt.Errorf("%w (%w)", context.Cause(ctx), health)
	}
	if apiCode(err) != 0 {
		return fmt.Errorf("%w (last answer: %w)", context.Cause(ctx), err)
	}
	return context.Cause(ctx)
}

// ready returns the connection if it stands. Before the first attempt to
// connect has come to an end it waits for that.
func (a *Adapter) ready(ctx context.Context) (*nats.Conn, error) {
	if err := a.awaitTried(ctx); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closing {
		return nil, adapter.ErrClosed
	}
	if !a.link.up || a.link.nc == nil {
		return nil, a.healthLocked()
	}
	return a.link.nc, nil
}

// saw notes the latest number of a stream that this adapter has seen.
func (a *Adapter) saw(p int, seq uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lastKept[p] = max(a.lastKept[p], seq)
}

// streamAndHead returns the stream and the last record of a channel. Fresh
// means that what is remembered is not good enough. If the stream has fewer
// records of the channel than before, it has lost some. A server may not know
// yet of a stream that is new, so that is asked again until ctx ends.
func (a *Adapter) streamAndHead(ctx context.Context, nc *nats.Conn, p int, channel string, fresh bool) (*stream, head, error) {
	var said error // by a server
	for attempt := 0; ; attempt++ {
		s, h, err := a.tryStreamAndHead(ctx, nc, p, channel, fresh)
		if apiCode(err) == codeStreamNotFound {
			said = err
			if pause(ctx, attempt) == nil {
				continue
			}
		}
		if err != nil && said != nil && ctx.Err() != nil {
			err = said // it says more than that the time is over
		}
		return s, h, err
	}
}

func (a *Adapter) tryStreamAndHead(ctx context.Context, nc *nats.Conn, p int, channel string, fresh bool) (*stream, head, error) {
	s, err := a.stream(ctx, nc, p)
	if err != nil {
		return nil, head{}, err
	}
	before, known := a.heads.get(channel)
	if known && !fresh && !before.doubted {
		return s, before, nil
	}
	h, err := a.last(ctx, nc, p, channel)
	if err != nil {
		return nil, head{}, err
	}
	if known && h.seq < before.seq && h.seq > 0 {
		if s, err = a.streams.lost(p, channel, s); err != nil {
			return nil, head{}, err
		}
		a.heads.dropOf(p, a.o.Partitions) // or another channel would end the new epoch
		a.heads.set(channel, h)
		return s, h, nil
	}
	a.streams.complete(channel)
	return s, a.heads.asked(channel, before.seq, h), nil
}

// store has a stream keep a record, if the channel's last one has number seq.
// An error wraps adapter.ErrUnsent if the stream cannot have taken it.
func (a *Adapter) store(ctx context.Context, nc *nats.Conn, p int, seq uint64, next *record, r *adapter.Record) (*jetstream.PubAck, error) {
	m := nats.NewMsg(a.storeSubject(p, next.channel))
	m.Data = appendRecord(make([]byte, 0, len(next.frame)+len(next.channel)+frameOverhead), next)
	m.Header.Set(jetstream.ExpectedStreamHeader, a.streamName(p))
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(seq, 10))
	m.Header.Set("Nats-TTL", strconv.FormatInt(int64((r.Keep.Age+noteAge+time.Second)/time.Second), 10))
	if r.Publisher != "" {
		m.Header.Set(jetstream.MsgIDHeader, messageID(next.channel, r))
	}
	if most := nc.MaxPayload(); most > 0 && int64(m.Size()) > most {
		return nil, fmt.Errorf("%w: %w: %d bytes are more than the server's max_payload, which is %d", adapter.ErrUnsent, adapter.ErrRefused, m.Size(), most)
	}
	one, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	reply, err := nc.RequestMsgWithContext(one, m)
	switch {
	case err != nil && one.Err() != nil:
		return nil, a.streamError(nc, fmt.Errorf("%w: %w", errSilent, err))
	case errors.Is(err, nats.ErrNoResponders): // the stream has no leader, or is gone
		a.forgetStream(p)
		return nil, fmt.Errorf("%w: %w", adapter.ErrUnsent, a.streamError(nc, err))
	case err != nil && unsent(err):
		return nil, fmt.Errorf("%w: %w", adapter.ErrUnsent, err)
	case err != nil:
		return nil, a.streamError(nc, err)
	}
	var ack struct {
		jetstream.PubAck
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(reply.Data, &ack); err != nil {
		return nil, fmt.Errorf("the answer of JetStream: %w", err)
	}
	switch {
	case ack.Error == nil && ack.Sequence > 0:
		return &ack.PubAck, nil
	case ack.Error == nil:
		return nil, errors.New("the answer of JetStream has no sequence")
	case ack.Error.ErrorCode == codeWrongSequence, ack.Error.ErrorCode == codeWrongSequenceToo:
		return nil, errRace
	case ack.Error.ErrorCode == codeTwiceAtOnce:
		return nil, fmt.Errorf("the frame is just being stored: %w", ack.Error)
	}
	if ack.Error.Code >= 500 && ack.Error.ErrorCode != codeInsufficient {
		return nil, ack.Error // the leader may have failed while it stored the record
	}
	return nil, fmt.Errorf("%w: %w", adapter.ErrUnsent, ack.Error)
}

// messageID returns the ID by which a stream recognises a repeated frame.
func messageID(channel string, r *adapter.Record) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d:%s%d:%s%d %d", len(channel), channel, len(r.Publisher), r.Publisher, r.Stream, r.Seq))
	return hex.EncodeToString(sum[:16])
}

// trim has a stream drop what its channel no longer needs. Each record has an
// ordinal in its channel; the hub that appends a certain ordinal trims by
// number for all hubs. Every hub that appends trims by age. Append does not
// wait for it.
func (a *Adapter) trim(nc *nats.Conn, p int, channel string, r *record, seq uint64, keep adapter.Retention) {
	if every := uint64(max(32, keep.Messages/4)); r.ordinal%every == 0 {
		a.purge(nc, p, channel, map[string]any{"keep": keep.Messages})
	}
	if old := a.heads.age(channel, seq, keep.Age, time.Now()); old > 0 {
		a.purge(nc, p, channel, map[string]any{"seq": old + 1})
	}
}

// purge asks for a purge of a channel, and does not wait for the answer.
func (a *Adapter) purge(nc *nats.Conn, p int, channel string, request map[string]any) {
	request["filter"] = a.storeSubject(p, channel)
	data, _ := json.Marshal(request)
	// If it is lost, the next purge does its work.
	_ = nc.PublishRequest("$JS.API.STREAM.PURGE."+a.streamName(p), a.o.Prefix+".nobody", data)
}
