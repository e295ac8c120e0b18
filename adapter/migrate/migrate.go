package migrate

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/migrate/internal/flip"
	"github.com/fanoutgo/fanout/internal/attached"
	"github.com/fanoutgo/fanout/internal/closing"
	"github.com/fanoutgo/fanout/internal/wire"
)

// A Phase is the phase of a migration that a hub is in.
type Phase uint8

const (
	// Asking: the hub has just started, or has lost the old backend for some
	// seconds, and does not know whether the others have flipped. It publishes
	// nothing: Publish, Subscribe and History wait.
	Asking = Phase(flip.Asking)
	// Both: it publishes to the old backend, and listens to both.
	Both = Phase(flip.Both)
	// Pausing: all hubs are about to flip. It publishes nothing for some
	// milliseconds, or for a few seconds if a hub does not answer: Publish,
	// Subscribe and History wait.
	Pausing = Phase(flip.Pausing)
	// Flipped: it publishes to the new backend, and listens to both.
	Flipped = Phase(flip.Flipped)
)

func (p Phase) String() string { return flip.Phase(p).String() }

// Options configure an Adapter. Nil is the zero value, which has the defaults.
// All hubs of a migration need the same Prefix and Settle.
type Options struct {
	// Prefix is that of the hubs (fanout.Options.Prefix). Default "fanout".
	Prefix string

	// Hold keeps all hubs from flipping for as long as at least one hub has it
	// set.
	Hold bool

	// Settle is how long all hubs must have listened to both backends, with no
	// other hub heard at the old one, before they flip: another hub would not
	// receive what is published after that. The default is 150 s, or 1.5 s for
	// each hub if that is longer: hubs say hello every half minute, and less often
	// if there are more than a hundred.
	Settle time.Duration

	// Logger gets a line for each new phase, for what keeps the hub from being
	// ready, and when the hub no longer needs the old backend or has given up.
	// Default slog.Default().
	Logger *slog.Logger
}

// An Adapter carries the frames of one hub through two backends. It is an
// [adapter.Adapter], and has the optional capabilities
// [adapter.AsyncPublisher], [adapter.Historian] and [adapter.HealthChecker] as
// far as both backends have them.
type Adapter struct {
	from, to side
	name     string // of the migration
	control  string // its channel, at both
	everyone string // the channel of all hubs
	id       uint64
	prober   chan struct{} // full while something is published to everyone at from
	log      *slog.Logger
	life     context.Context // ends when Close begins
	end      context.CancelFunc
	close    *closing.Closing
	kick     chan struct{} // capacity 1: the node is to be asked
	flipped  atomic.Bool   // the phase is Flipped
	receiver adapter.Receiver
	history  adapter.HistoryReceiver // the receiver, if it is one
	copies   copies

	// mu guards everything below. It is not held while a backend or the
	// receiver is called.
	mu       sync.RWMutex
	node     *flip.Node
	phase    flip.Phase
	changed  chan struct{} // closed and replaced when the phase changes
	inflight int           // calls that use from
	channels map[string]*channel
	pending  map[*channel]time.Time // not confirmed at to, and since when
	newDown  int                    // channels that are interrupted at to
	heardNew bool                   // the control channel is subscribed at to
	deafNew  bool                   // and interrupted
	settling settling
	hub      uint64 // whose frames these are; 0: not known yet
	attached bool
	closed   bool
}

// A side is one of the backends, with its capabilities.
type side struct {
	adapter.Adapter
	async     adapter.AsyncPublisher // nil: it has none
	historian adapter.Historian
	health    adapter.HealthChecker
}

func newSide(a adapter.Adapter) side {
	s := side{Adapter: a}
	s.async, _ = a.(adapter.AsyncPublisher)
	s.historian, _ = a.(adapter.Historian)
	s.health, _ = a.(adapter.HealthChecker)
	return s
}

// Health returns nil for a backend that does not know.
func (s *side) Health() error {
	if s.health == nil {
		return nil
	}
	return s.health.Health()
}

var (
	_ adapter.Adapter        = (*Adapter)(nil)
	_ adapter.AsyncPublisher = (*Adapter)(nil)
	_ adapter.Historian      = (*Adapter)(nil)
	_ adapter.HealthChecker  = (*Adapter)(nil)
)

// New returns an adapter that takes a hub from one backend to another. It owns
// both, and closes them. The name is that of the migration. All hubs give the
// same name, and each further migration of these hubs needs a new one.
//
// New fails if an adapter is nil or a nil pointer, if the name is empty, longer
// than 100 bytes, not UTF-8, or has one of the characters %{}, or if an option
// is out of range ([adapter.ErrInvalidOption]).
func New(name string, from, to adapter.Adapter, o *Options) (*Adapter, error) {
	if o == nil {
		o = new(Options)
	}
	opts := *o
	if opts.Prefix == "" {
		opts.Prefix = "fanout"
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	switch {
	case from == nil || to == nil || attached.Same(from, to):
		return nil, fmt.Errorf("migrate: %w: two adapters are needed", adapter.ErrInvalidOption)
	case attached.IsNil(from):
		return nil, fmt.Errorf("migrate: %w: the old adapter is a nil %T", adapter.ErrInvalidOption, from)
	case attached.IsNil(to):
		return nil, fmt.Errorf("migrate: %w: the new adapter is a nil %T", adapter.ErrInvalidOption, to)
	case !utf8.ValidString(name):
		return nil, fmt.Errorf("migrate: %w: the name %q is not valid UTF-8", adapter.ErrInvalidOption, name)
	case name == "" || len(name) > 100 || strings.ContainsAny(name, "%{}"):
		return nil, fmt.Errorf("migrate: %w: the name %q is empty, longer than 100 bytes, or has one of %%{}", adapter.ErrInvalidOption, name)
	case opts.Settle < 0:
		return nil, fmt.Errorf("migrate: %w: a negative time", adapter.ErrInvalidOption)
	}
	if err := wire.CheckPrefix(opts.Prefix); err != nil {
		return nil, fmt.Errorf("migrate: %w: Prefix %q: %w", adapter.ErrInvalidOption, opts.Prefix, err)
	}
	names := wire.Names{Prefix: opts.Prefix}
	var id [8]byte
	_, _ = rand.Read(id[:]) // it does not fail
	a := &Adapter{
		from: newSide(from), to: newSide(to), name: name, id: binary.BigEndian.Uint64(id[:]),
		control: opts.Prefix + ":m:{" + name + "}", everyone: names.Everyone(), log: opts.Logger,
		prober: make(chan struct{}, 1), close: closing.New("migrate"), kick: make(chan struct{}, 1),
		changed: make(chan struct{}), channels: make(map[string]*channel), pending: make(map[*channel]time.Time),
	}
	a.node = flip.New(fmt.Sprintf("%016x", a.id), opts.Hold, flip.Times(opts.Settle), time.Now())
	a.life, a.end = context.WithCancel(context.Background())
	return a, nil
}

// A Status is the state of a hub in a migration, for people and for health
// pages.
type Status struct {
	Phase Phase
	Hubs  int // that take part and are there, as far as this one knows
	// Waiting says what has to happen before the hubs flip and, after the flip,
	// before this hub is Settled. It is empty when the hub is Settled.
	Waiting string
	// Settlement says whether this hub still needs the old backend after the flip.
	// While it is Settling, or after it GaveUp, Left is the number of rooms and
	// other channels that need it.
	Settlement Settlement
	Left       int
}

// Status returns the state of the hub. It does not wait.
func (a *Adapter) Status() Status {
	a.mu.RLock()
	defer a.mu.RUnlock()
	now := time.Now()
	s := Status{
		Phase: Phase(a.phase), Hubs: a.node.Peers(now) + 1, Waiting: a.node.Why(now),
		Settlement: a.settling.state, Left: a.settling.left,
	}
	if a.phase == flip.Flipped {
		s.Waiting = a.whyUnsettledLocked()
	}
	return s
}

// Health returns the health of the backend that the hub publishes to. The other
// one may be down.
func (a *Adapter) Health() error {
	a.mu.RLock()
	phase, closed := a.phase, a.closed
	a.mu.RUnlock()
	switch {
	case closed:
		return fmt.Errorf("migrate: %w", adapter.ErrClosed)
	case phase == flip.Flipped:
		return a.to.Health()
	}
	if err := a.from.Health(); err != nil {
		return err
	}
	if phase == flip.Asking {
		return errors.New("migrate: it is not known yet whether the other hubs have flipped")
	}
	return nil
}

// Attach attaches both backends, and begins to talk to the other hubs.
func (a *Adapter) Attach(r adapter.Receiver) error {
	if r == nil {
		return errors.New("migrate: attach: nil receiver")
	}
	a.mu.Lock()
	switch {
	case a.closed:
		a.mu.Unlock()
		return fmt.Errorf("migrate: attach: %w", adapter.ErrClosed)
	case a.attached:
		a.mu.Unlock()
		return errors.New("migrate: attach: the adapter has a receiver already")
	}
	a.attached = true
	a.receiver = r
	a.history, _ = r.(adapter.HistoryReceiver)
	a.mu.Unlock()
	for _, s := range []struct {
		side *side
		old  bool
	}{{&a.from, true}, {&a.to, false}} {
		var receiver adapter.Receiver = plainReceiver{a, s.old}
		if a.history != nil {
			receiver = historyReceiver{plainReceiver{a, s.old}}
		}
		if err := s.side.Attach(receiver); err != nil {
			return err
		}
	}
	a.start(a.talk)
	a.start(func() { a.listen(&a.from, a.listenOld) })
	a.start(func() { a.listen(&a.to, a.listenNew) })
	return nil
}

// start runs f on a goroutine that Close waits for, unless the adapter is
// closed.
func (a *Adapter) start(f func()) { a.close.Go(f) }

// Close closes both backends.
func (a *Adapter) Close(ctx context.Context) error {
	a.mu.Lock()
	early := !a.closed && a.phase == flip.Flipped && a.settling.state != Settled
	a.closed = true
	a.mu.Unlock()
	if early {
		a.log.Warn("migrate: the hub closes while it still needs the old backend: histories of its rooms may not have been copied",
			"migration", a.name)
	}
	a.end()
	a.close.Begin(a.shut)
	return a.close.Wait(ctx)
}

func (a *Adapter) shut() error {
	var both sync.WaitGroup
	for _, s := range []*side{&a.from, &a.to} {
		both.Go(func() { _ = s.Close(context.Background()) }) // it returns nil, since the context does not end
	}
	both.Wait()
	return nil
}
