package partition

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/backoff"
	"github.com/fanoutgo/fanout/internal/wire"
)

// lineages is what is known of the histories that this hub has used.
type lineages struct {
	mu    sync.Mutex // guards all below
	rooms map[string]*room
	epoch uint64 // of the set for which homes are known
}

// A room is a room with a history.
type room struct {
	turn chan struct{} // has a value while somebody finds out where the history is

	// Guarded by lineages.mu.
	known    bool // home is where the history is
	home     home
	loaded   time.Time
	keep     adapter.Retention
	doubtful *doubt // the last Append, if it may or may not be kept
}

// A doubt is a record that may or may not be kept on a partition.
type doubt struct {
	adapter.Record
	part *part
}

func (d *doubt) is(r *adapter.Record) bool {
	return d != nil && d.Publisher == r.Publisher && d.Stream == r.Stream && d.Seq == r.Seq
}

// resolved is the last Append of this hub that is known to be kept. The new
// home of a room does not know how far its publishers have come.
type resolved struct {
	publisher    string
	stream, next uint64
	at           adapter.Position
}

const (
	// maxRooms bounds the rooms that are remembered. Others are looked up when
	// they are used again.
	maxRooms = 1 << 16
	// reload is how often a record is read again, and renewed.
	reload = 6 * time.Hour
)

// get returns what is known of a room.
func (l *lineages) get(name string) *room {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.rooms[name]
	if r == nil {
		if l.rooms == nil {
			l.rooms = make(map[string]*room)
		}
		for other, o := range l.rooms {
			if len(l.rooms) < maxRooms {
				break
			}
			if o.doubtful == nil && len(o.turn) == 0 {
				delete(l.rooms, other)
			}
		}
		r = &room{turn: make(chan struct{}, 1)}
		l.rooms[name] = r
	}
	return r
}

// lookup returns the home of a room, if it is known to be the given partition.
func (l *lineages) lookup(r *room, p *part, now time.Time) (home, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return r.home, r.known && r.home.part == p && now.Sub(r.loaded) < reload
}

// found notes the home of a room in a view. It is not known after that if the
// set has changed meanwhile: the room may have gone, and come back.
func (l *lineages) found(r *room, v *view, p *part, line lineage, keep adapter.Retention) home {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.home.part, r.home.line = p, line
	r.known, r.loaded, r.keep = v.epoch >= l.epoch, time.Now(), keep
	return r.home
}

// forget forgets the homes of rooms that have moved, or of all, before a view
// becomes the current one.
func (l *lineages) forget(v *view, all bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch = v.epoch
	for name, r := range l.rooms {
		if all || r.known && v.cur.pick(parse(name).key) != r.home.part.name {
			r.known = false
		}
	}
}

// moved returns the rooms whose homes have to be looked up again.
func (l *lineages) moved() map[string]adapter.Retention {
	l.mu.Lock()
	defer l.mu.Unlock()
	moved := make(map[string]adapter.Retention)
	for name, r := range l.rooms {
		if !r.known && r.home.part != nil {
			moved[name] = r.keep
		}
	}
	return moved
}

// noteKept notes that a record is kept. The caller holds lineages.mu.
func (r *room) noteKept(record *adapter.Record, at adapter.Position) {
	r.doubtful = nil
	if record.Publisher == "" {
		return // its frames are never recognised
	}
	r.home.resolved = resolved{record.Publisher, record.Stream, record.Seq + uint64(record.Messages), at}
}

// appended notes how an Append on a partition ended.
func (l *lineages) appended(name string, p *part, r *adapter.Record, at adapter.Position, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	room := l.rooms[name]
	switch {
	case room == nil:
	case err == nil:
		room.noteKept(r, at)
	case r.Publisher == "": // nobody can find out
	case errors.Is(err, adapter.ErrUnsent):
		if !room.doubtful.is(r) { // otherwise an earlier attempt may have kept it
			room.doubtful = nil
		}
	default:
		room.doubtful = &doubt{*r, p}
		room.doubtful.Frame = slices.Clone(r.Frame) // the caller owns it
	}
}

// doubted reports whether it is not known if a record was kept before its room
// moved to a partition.
func (l *lineages) doubted(name string, p *part, r *adapter.Record) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	room := l.rooms[name]
	return room != nil && room.doubtful.is(r) && room.doubtful.part != p
}

// doubts returns the records that may or may not be kept, of rooms that move.
func (l *lineages) doubts(v *view, copies int) map[string]adapter.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	doubts := make(map[string]adapter.Record)
	for name, r := range l.rooms {
		if r.doubtful != nil && r.known && v.moves(parse(name), copies) {
			doubts[name] = r.doubtful.Record
		}
	}
	return doubts
}

// resolve finds out, before rooms move, which of the last Appends were kept: if
// a publisher repeated one later, the new home would not recognise it.
func (a *Adapter) resolve(ctx context.Context, v *view) {
	ctx, cancel := context.WithTimeout(ctx, a.opts.Patience)
	defer cancel()
	for name, record := range a.rooms.doubts(v, a.opts.Copies) {
		r := a.rooms.get(name)
		a.rooms.mu.Lock()
		h := r.home
		a.rooms.mu.Unlock()
		record.Frame = repeated(record.Frame)
		var wait backoff.Backoff
		for {
			at, _, err := h.part.history.Append(ctx, name, record)
			if err == nil {
				a.rooms.mu.Lock()
				r.noteKept(&record, h.line.global(at))
				a.rooms.mu.Unlock()
			}
			if err == nil || errors.Is(err, adapter.ErrRefused) || errors.Is(err, adapter.ErrClosed) || !wait.Wait(ctx) {
				break
			}
		}
	}
}

// repeated returns a frame as it is sent when an earlier attempt may have
// arrived: of a frame that is sent for the first time, a backend does not
// believe that it has it.
func repeated(frame []byte) []byte {
	k, sealed := openKept(frame)
	if !wire.IsFirst(k.frame) {
		return frame
	}
	k.frame = wire.Again(k.frame, true, 0)
	if sealed {
		return k.seal()
	}
	return k.frame
}

// resolvedBefore reports whether a record is known to be kept, perhaps since
// before the room moved.
func (h *home) resolvedBefore(r *adapter.Record) (at adapter.Position, ok bool) {
	d := &h.resolved
	return d.at, d.publisher != "" && d.publisher == r.Publisher && d.stream == r.Stream && r.Seq < d.next
}

// moveHistories moves the histories that this hub has used.
func (a *Adapter) moveHistories(ctx context.Context, v *view) {
	ctx, cancel := context.WithTimeout(ctx, moveFactor*a.opts.Patience)
	defer cancel()
	var all sync.WaitGroup
	places := make(chan struct{}, moveAtOnce)
	for name, keep := range a.rooms.moved() {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			var wait backoff.Backoff
			for {
				_, err := a.ensure(ctx, v, name, parse(name), keep)
				if err == nil || errors.Is(err, adapter.ErrRefused) || !wait.Wait(ctx) {
					break
				}
			}
			if ctx.Err() != nil && a.ctx.Err() == nil {
				a.opts.Logger.Warn("partition: the history of a room could not be moved in time; it is tried again when the room is used", "channel", name)
			}
		})
	}
	all.Wait()
}

const (
	// moveAtOnce is how many histories are moved at a time, and moveFactor how
	// many times Patience that may take for all.
	moveAtOnce = 16
	moveFactor = 3
)
