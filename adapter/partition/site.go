package partition

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/partition/internal/locate"
)

// A site is a partition with what it has of the history.
type site struct {
	home
	number uint64 // of the entry that has the record
	has    locate.Site
}

// elsewhere returns what the other partitions have of the history. Must says
// that the room moved in the last change, and that its old home was asked;
// other partitions may have a part of the history or none. Unread says why
// some of them could not be read.
func (m *move) elsewhere(ctx context.Context, p *part) (others []site, must bool, unread map[string]error, err error) {
	unread = make(map[string]error)
	a, old := m.adapter, ""
	if m.view.old != nil {
		old = m.view.old.pick(m.channel.key)
	}
	a.mu.RLock()
	parts := a.sortedParts()
	a.mu.RUnlock()
	for _, other := range parts {
		if other == p || other.history == nil {
			continue
		}
		needed := other.name == old
		if problem := other.problem(); !needed && problem != nil {
			unread[other.name] = m.unreadable(other.name, problem)
			continue
		}
		bound, cancel := ctx, context.CancelFunc(func() {})
		if !needed {
			bound, cancel = context.WithTimeout(ctx, askTimeout)
		}
		s, _, err := m.site(bound, other)
		cancel()
		switch {
		case err != nil && needed:
			return nil, true, nil, m.unreadable(old, err)
		case err != nil:
			unread[other.name] = m.unreadable(other.name, err)
			continue
		}
		must = must || needed
		others = append(others, s)
	}
	return others, must, unread, nil
}

func (m *move) unreadable(name string, err error) error {
	return fmt.Errorf("the room has moved from partition %q, which cannot be read: %w", name, err)
}

// site reads what a partition has of the history, and how old its record is.
func (m *move) site(ctx context.Context, p *part) (s site, age time.Duration, err error) {
	s.part = p
	if s.line, age, s.number, err = m.record(ctx, p); err != nil {
		return s, 0, err
	}
	s.has.Left = s.line.Left
	q := adapter.Query{Keep: m.keep, Time: time.Now()}
	top, err := p.history.History(ctx, m.name, q)
	if err != nil || top.Head.Offset == 0 { // it has no message, though it may have an epoch
		return s, age, err
	}
	s.has.Head = lastOf(s.line.chain(&top))
	if top.Head.Offset <= s.line.Base {
		return s, age, nil
	}
	q.Since, q.Limit = adapter.Position{Epoch: top.Head.Epoch, Offset: top.Head.Offset - 1}, 1
	last, err := p.history.History(ctx, m.name, q)
	if s.has.Expired = len(last.Frames) == 0; err != nil || s.has.Expired {
		return s, age, err
	}
	f := last.Frames[len(last.Frames)-1]
	if k, ok := openKept(f.Frame); ok && k.kind != shifted {
		s.has.Partial, s.has.Head = true, adapter.Position{Epoch: k.epoch, Offset: f.At.Offset}
	}
	return s, age, nil
}

// lastOf returns the position of the last message of a history with a head and
// the epochs before it. A server that was started again, or has taken over from
// another, begins an epoch though nothing is published: that makes a copy that
// was left behind no newer than the history.
func lastOf(head adapter.Position, before []adapter.PastEpoch) adapter.Position {
	for _, past := range slices.Backward(before) {
		if past.Last < head.Offset {
			break
		}
		head = adapter.Position{Epoch: past.Epoch, Offset: past.Last}
	}
	return head
}

// besideChannel is a name under which more is kept of a room: its record (m),
// and who copies it (c).
func besideChannel(name, what string) string {
	if at := strings.IndexByte(name, '{'); at >= 0 {
		return name[:at] + what + ":" + name[at:]
	}
	return name + ":" + what
}

// recordKeep is how long the record of a room is kept.
func recordKeep(keep adapter.Retention) adapter.Retention {
	return adapter.Retention{Messages: 1, Age: min(2*keep.Age+4*24*time.Hour, maxAge)}
}

// record reads the lineage at a partition, how old it is, and the number of the
// entry that has it.
func (m *move) record(ctx context.Context, p *part) (line lineage, age time.Duration, number uint64, err error) {
	q := adapter.Query{Limit: maxPast, Keep: recordKeep(m.keep), Time: time.Now()}
	page, err := p.history.History(ctx, besideChannel(m.name, "m"), q)
	if err != nil || len(page.Frames) == 0 {
		return line, 0, page.Head.Offset, err
	}
	f := page.Frames[len(page.Frames)-1]
	k, ok := openKept(f.Frame)
	if !ok || k.kind != record || json.Unmarshal(k.frame, &line) != nil {
		return lineage{}, 0, 0, fmt.Errorf("%w: %w: the record of how it moved cannot be read", adapter.ErrRefused, adapter.ErrBrokenHistory)
	}
	return line, f.Age, page.Head.Offset, nil
}

// note writes the lineage at a partition, after the entry of the last record.
// If another hub has been faster, that one's is returned.
func (m *move) note(ctx context.Context, p *part, line *lineage, last uint64) (lineage, error) {
	data, err := json.Marshal(line)
	if err != nil {
		return lineage{}, err
	}
	k := kept{kind: record, frame: data}
	_, _, err = p.history.Append(ctx, besideChannel(m.name, "m"), adapter.Record{
		Frame: k.seal(), Messages: 1, Keep: recordKeep(m.keep), Time: time.Now(),
		Publisher: mover, Stream: 1, Seq: last + 1,
	})
	if err != nil {
		return lineage{}, err
	}
	noted, _, _, err := m.record(ctx, p)
	if err == nil && noted.Era == line.Era && noted.Set < line.Set {
		err = errors.New("the record of how it moved was not kept")
	}
	return noted, err
}

// leave notes at the other partitions that the history has gone to one. When
// the room comes back, what they have is not taken for the whole, whatever the
// epochs of sets are by then: they begin anew when all hubs are started again.
func (m *move) leave(ctx context.Context, others []site, to string) {
	m.adapter.mu.RLock()
	current := m.adapter.view.epoch == m.view.epoch
	m.adapter.mu.RUnlock()
	for _, s := range others {
		if !current || s.line.Left == to || s.line.Set == 0 && s.line.Left == "" && s.has.Head.IsZero() {
			continue
		}
		line := s.line
		line.Set, line.Left = 0, to
		if _, err := m.note(ctx, s.part, &line, s.number); err != nil {
			m.adapter.opts.Logger.Warn("partition: it could not be noted that a room has moved",
				"channel", m.name, "from", s.part.name, "to", to, "error", err)
		}
	}
}
