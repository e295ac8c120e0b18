package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/nats-io/nats.go"
)

const (
	readIn     = 2 * flushIn // how long one History may take
	batchLen   = 256         // records that are read at once
	batchBytes = 8 << 20
	seekFrom   = 4 * batchLen // with more records to skip than this, seek looks for the place
)

// An entry is a record in its stream.
type entry struct {
	record
	seq  uint64
	time time.Time // at the server
}

// History implements adapter.Historian.
func (a *Adapter) History(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
	nc, err := a.ready(ctx)
	if err == nil {
		var cancel, cancelIn context.CancelFunc
		ctx, cancel = a.bound(ctx)
		defer cancel()
		ctx, cancelIn = context.WithTimeout(ctx, readIn)
		defer cancelIn()
		var page adapter.Page
		if page, err = a.readRecent(ctx, nc, channel, &q); err == nil {
			return page, nil
		}
		err = a.cause(ctx, err)
	}
	return adapter.Page{}, fmt.Errorf("nats: history of %q: %w", channel, err)
}

// lagIn is how long a server may lack the position that is asked for, before it
// is believed that nobody has it.
const lagIn = flushIn

// readRecent reads a page. A server that is cut off from the others goes on to
// answer from what it has, which may end before the position that is asked for.
// Then it is asked again for up to lagIn.
func (a *Adapter) readRecent(ctx context.Context, nc *nats.Conn, channel string, q *adapter.Query) (adapter.Page, error) {
	began := time.Now()
	for attempt := 0; ; attempt++ {
		page, err := a.readPage(ctx, nc, channel, q)
		lags := q.Since.Epoch == page.Head.Epoch && q.Since.Offset > page.Head.Offset
		if err != nil || !lags || time.Since(began) > lagIn {
			return page, err
		}
		if err := pause(ctx, attempt); err != nil {
			return page, err
		}
	}
}

func (a *Adapter) readPage(ctx context.Context, nc *nats.Conn, channel string, q *adapter.Query) (adapter.Page, error) {
	p := partitionOf(channel, a.o.Partitions)
	s, h, err := a.currentHead(ctx, nc, p, channel)
	if err != nil || h.seq == 0 {
		return adapter.Page{First: 1}, err
	}
	page := adapter.Page{Head: h.at, Before: h.before, First: h.at.Offset + 1}
	oldest, ok, err := a.oldest(ctx, nc, p, s, &h, q.Keep.Age)
	if err != nil || !ok {
		return page, err
	}
	if oldest.messages > 0 || oldest.at.Offset < h.at.Offset {
		page.First = oldest.first()
	}
	if n := h.at.Offset - min(uint64(q.Keep.Messages), h.at.Offset) + 1; n > page.First {
		page.First = n
	}
	if q.Limit == 0 || page.First > h.at.Offset {
		return page, nil
	}
	return page, a.fill(ctx, nc, p, &page, q, s, &oldest, &h)
}

// retries is how often a replica is asked again that does not have the latest
// records yet.
const retries = 20

// oldest returns the oldest record that is not older than age. It is not ok if
// all records are older.
func (a *Adapter) oldest(ctx context.Context, nc *nats.Conn, p int, s *stream, h *head, age time.Duration) (e entry, ok bool, err error) {
	since := time.Now().Add(s.skew).Add(-age)
	for attempt := range retries {
		e, ok, err = a.firstSince(ctx, nc, p, h.channel, since)
		if err != nil || ok || h.time.Before(since) {
			return e, ok, err
		}
		if err := pause(ctx, attempt+2); err != nil {
			return e, false, err
		}
	}
	return e, false, errors.New("the stream does not give what it has said it has")
}

// currentHead returns the head of a channel in the current epoch. If that epoch
// has not begun yet, currentHead appends a record without messages to begin it,
// so that all hubs agree on it.
func (a *Adapter) currentHead(ctx context.Context, nc *nats.Conn, p int, channel string) (*stream, head, error) {
	for attempt := 0; ; attempt++ {
		s, h, err := a.streamAndHead(ctx, nc, p, channel, true)
		if err != nil || h.seq == 0 {
			return s, h, err
		}
		next := s.continues(h, channel)
		if next.at.Epoch == h.at.Epoch {
			return s, h, nil
		}
		keep := adapter.Record{Keep: adapter.Retention{Age: noteAge}}
		ack, err := a.store(ctx, nc, p, h.seq, &next, &keep)
		switch {
		case err == nil:
			a.saw(p, ack.Sequence)
			return s, head{record: next, seq: ack.Sequence, time: time.Now().Add(s.skew)}, nil
		case !errors.Is(err, errRace):
			return s, h, err
		}
		if err := pause(ctx, attempt); err != nil {
			return s, h, err
		}
	}
}

// wanted reports whether a record comes after a position, in a history with
// the head h.
func wanted(h *head, since adapter.Position) func(*record) bool {
	if since.Epoch == h.at.Epoch || since.IsZero() {
		return func(r *record) bool { return r.at.Offset > since.Offset }
	}
	for _, past := range h.before {
		if past.Epoch == since.Epoch {
			from := min(since.Offset, past.Last)
			return func(r *record) bool { return r.at.Offset > from }
		}
	}
	return func(r *record) bool { return r.at.Epoch > since.Epoch }
}

// fill adds to a page the frames from its First on that come after q.Since.
func (a *Adapter) fill(ctx context.Context, nc *nats.Conn, p int, page *adapter.Page, q *adapter.Query, s *stream, oldest *entry, h *head) error {
	after := wanted(h, q.Since)
	want := func(r *record) bool { return r.at.Offset >= page.First && after(r) }
	from, err := a.seek(ctx, nc, p, h, oldest, want)
	if err != nil {
		return err
	}
	messages, size := 0, 0
	now := time.Now().Add(s.skew)
	for retry := 0; from <= h.seq; {
		list, err := a.batch(ctx, nc, p, h.channel, from, batchLen)
		if err != nil {
			return err
		}
		for i := range list {
			e := &list[i]
			if e.seq > h.seq {
				return nil
			}
			from = e.seq + 1
			if e.messages == 0 || !want(&e.record) {
				continue
			}
			if messages >= q.Limit || q.Bytes > 0 && size >= q.Bytes {
				page.More = true
				return nil
			}
			if n := len(page.Frames); n > 0 && page.Frames[n-1].At.Offset+1 != e.first() {
				return fmt.Errorf("%w: %w: offset %d follows %d", adapter.ErrRefused, adapter.ErrBrokenHistory, e.first(), page.Frames[n-1].At.Offset)
			}
			messages, size = messages+int(e.messages), size+len(e.frame)
			page.Frames = append(page.Frames, adapter.KeptFrame{At: e.at, Frame: e.frame, Age: max(0, now.Sub(e.time))})
		}
		if len(list) > 0 {
			retry = 0
			continue
		}
		// The replica that answered does not have the latest records yet.
		if retry++; retry > retries {
			return errors.New("the stream does not give what it has said it has")
		}
		if err := pause(ctx, retry+2); err != nil {
			return err
		}
	}
	return nil
}

// seek returns a number in the stream at which to begin to read. Records are
// looked for by their ordinals: the stream can only say which record of the
// channel is the next after a number.
func (a *Adapter) seek(ctx context.Context, nc *nats.Conn, p int, h *head, oldest *entry, want func(*record) bool) (uint64, error) {
	low, lowOrdinal, high, highOrdinal := oldest.seq, oldest.ordinal, h.seq, h.ordinal
	for range 8 {
		if highOrdinal <= lowOrdinal+seekFrom || high <= low+1 {
			break
		}
		e, ok, err := a.next(ctx, nc, p, h.channel, low+(high-low)/2)
		switch {
		case err != nil:
			return 0, err
		case !ok || e.seq >= high || want(&e.record):
			high = low + (high-low)/2
			if ok {
				highOrdinal = min(highOrdinal, e.ordinal)
			}
		default:
			low, lowOrdinal = e.seq, e.ordinal
		}
	}
	return low, nil
}

// firstSince returns the first record of a channel that is not older than
// since.
func (a *Adapter) firstSince(ctx context.Context, nc *nats.Conn, p int, channel string, since time.Time) (entry, bool, error) {
	return a.one(ctx, nc, p, channel, map[string]any{"start_time": since.UTC()})
}

// next returns the first record of a channel that has a number or a later one.
func (a *Adapter) next(ctx context.Context, nc *nats.Conn, p int, channel string, seq uint64) (entry, bool, error) {
	return a.one(ctx, nc, p, channel, map[string]any{"seq": seq})
}

func (a *Adapter) one(ctx context.Context, nc *nats.Conn, p int, channel string, request map[string]any) (e entry, ok bool, err error) {
	request["next_by_subj"] = a.storeSubject(p, channel)
	data, _ := json.Marshal(request)
	m, err := a.request(ctx, nc, "$JS.API.DIRECT.GET."+a.streamName(p), data)
	if err != nil {
		return e, false, err
	}
	switch status := m.Header.Get("Status"); status {
	case "":
		e, err = readEntry(m, channel)
		return e, err == nil, err
	case "404":
		return e, false, nil
	default:
		return e, false, fmt.Errorf("the stream answers %s %s", status, m.Header.Get("Description"))
	}
}

// batch reads records of a channel from a number on. It returns none if the
// replica that answers does not have them yet.
func (a *Adapter) batch(ctx context.Context, nc *nats.Conn, p int, channel string, seq uint64, most int) ([]entry, error) {
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }() // the connection may be gone
	request, _ := json.Marshal(map[string]any{
		"seq": seq, "next_by_subj": a.storeSubject(p, channel), "batch": most, "max_bytes": batchBytes,
	})
	if err := nc.PublishRequest("$JS.API.DIRECT.GET."+a.streamName(p), inbox, request); err != nil {
		return nil, err
	}
	var list []entry
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, a.streamError(nc, err)
		}
		switch status := m.Header.Get("Status"); status {
		case "":
			e, err := readEntry(m, channel)
			if err != nil {
				return nil, err
			}
			list = append(list, e)
		case "204", "404":
			sort.Slice(list, func(i, j int) bool { return list[i].seq < list[j].seq })
			return list, nil
		default:
			return nil, fmt.Errorf("the stream answers %s %s", status, m.Header.Get("Description"))
		}
	}
}

// readEntry reads a record as a stream hands it out.
func readEntry(m *nats.Msg, channel string) (e entry, err error) {
	if e.record, err = stored(m.Data, channel); err != nil {
		return e, err
	}
	if e.seq, err = strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64); err != nil {
		return e, fmt.Errorf("the stream's answer: %w", err)
	}
	if e.time, err = time.Parse(time.RFC3339Nano, m.Header.Get("Nats-Time-Stamp")); err != nil {
		return e, fmt.Errorf("the stream's answer: %w", err)
	}
	return e, nil
}
