package partition

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/attached"
	"github.com/fanoutgo/fanout/internal/closing"
	"github.com/fanoutgo/fanout/internal/wire"
)

// A Partition is one of the backends.
type Partition struct {
	// Name decides, with the names of the others, which rooms the partition
	// has: valid UTF-8. All hubs give it the same name.
	Name string

	// Adapter is the hub's adapter for this backend. The partition adapter
	// attaches and closes it. Change accepts nil for a name that it knows.
	//
	// Each partition needs a backend of its own. If two of them are on one
	// backend, which cannot be noticed, each gets the frames of the other, and
	// Join waits until its ctx ends.
	Adapter adapter.Adapter

	// Leaving says that no room belongs to the partition now. Its adapter is
	// still needed for the change that removes it, and for histories that have not
	// moved yet.
	Leaving bool
}

// Options configure an Adapter. Nil is the zero value, which has the defaults.
type Options struct {
	// Prefix is that of the hub (fanout.Options.Prefix): 1 to 64 bytes without
	// braces. Default "fanout".
	Prefix string

	// Copies is the number of partitions on which inboxes, users' channels and the
	// channel to everyone are. All but one of these may be down. Default 2, or 1
	// if there is only one partition. All hubs need the same number.
	Copies int

	// Patience is how long a change of partitions waits for a hub that does not
	// answer, where the backend does not count receivers, and for a partition
	// that cannot be reached. It should be longer than a backend takes to
	// notice that a link is broken. Default 10 s.
	Patience time.Duration

	// Logger gets a line for each step of a change. Default slog.Default().
	Logger *slog.Logger
}

func (o *Options) withDefaults() (Options, error) {
	var opts Options
	if o != nil {
		opts = *o
	}
	if opts.Copies < 0 || opts.Patience < 0 {
		return opts, fmt.Errorf("partition: %w: Copies and Patience are positive", adapter.ErrInvalidOption)
	}
	if opts.Prefix == "" {
		opts.Prefix = wire.DefaultPrefix
	}
	if err := wire.CheckPrefix(opts.Prefix); err != nil {
		return opts, fmt.Errorf("partition: %w: Prefix %q: %w", adapter.ErrInvalidOption, opts.Prefix, err)
	}
	if opts.Copies == 0 {
		opts.Copies = 2
	}
	if opts.Patience == 0 {
		opts.Patience = 10 * time.Second
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	return opts, nil
}

// An Adapter is an [adapter.Adapter] over several others. It has the optional
// capabilities [adapter.AsyncPublisher], [adapter.Historian] and
// [adapter.HealthChecker], as far as the adapters of its partitions have them:
// a history on a partition that keeps none is refused. Make one for each hub.
type Adapter struct {
	opts   Options
	id     uint64
	number atomic.Uint64 // of copies
	ctx    context.Context
	cancel context.CancelFunc
	close  *closing.Closing

	control control
	rooms   lineages

	adding sync.Mutex // held while Change adds partitions; before mu

	// mu guards all below. Nothing is called or waited for under it.
	mu       sync.RWMutex
	receiver adapter.Receiver
	keeper   adapter.HistoryReceiver // the receiver, if it is one
	parts    map[string]*part
	listed   []string // partitions that New or Change were given last
	routes   map[string]*route
	view     *view
	past     []*view       // under which publishes may be under way
	deaf     chan struct{} // not nil: no other hub can reach this one; closed when one can
	closed   bool
}

var (
	_ adapter.Adapter        = (*Adapter)(nil)
	_ adapter.AsyncPublisher = (*Adapter)(nil)
	_ adapter.Historian      = (*Adapter)(nil)
	_ adapter.HealthChecker  = (*Adapter)(nil)
)

// New returns an adapter over some partitions, and owns their adapters. It
// sends nothing. It fails if there is no partition, if one has no valid name or
// no adapter, if two have one name or one adapter, or if an option is out of
// its range ([adapter.ErrInvalidOption]).
func New(partitions []Partition, o *Options) (*Adapter, error) {
	opts, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	a := &Adapter{
		opts: opts, close: closing.New("partition"),
		parts: make(map[string]*part), routes: make(map[string]*route),
	}
	var id [8]byte
	rand.Read(id[:]) // never fails
	a.id = binary.BigEndian.Uint64(id[:])
	names, err := a.check(partitions)
	if err != nil {
		return nil, fmt.Errorf("partition: %w", err)
	}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	for _, p := range partitions {
		a.parts[p.Name] = newPart(a, p)
	}
	a.view = &view{changed: make(chan struct{}), cur: newSet(names)}
	a.control.init(a, names)
	return a, nil
}

// check returns the sorted names of the set that some partitions are.
func (a *Adapter) check(partitions []Partition) (names []string, err error) {
	seen := make(map[string]bool)
	for _, p := range partitions {
		known := a.parts[p.Name]
		switch {
		case p.Name == "":
			return nil, fmt.Errorf("%w: a partition has no name", adapter.ErrInvalidOption)
		case !utf8.ValidString(p.Name):
			return nil, fmt.Errorf("%w: the name of partition %q is not valid UTF-8", adapter.ErrInvalidOption, p.Name)
		case seen[p.Name]:
			return nil, fmt.Errorf("%w: two partitions are called %q", adapter.ErrInvalidOption, p.Name)
		case p.Adapter == nil && known == nil:
			return nil, fmt.Errorf("%w: partition %q has no adapter", adapter.ErrInvalidOption, p.Name)
		case attached.IsNil(p.Adapter):
			return nil, fmt.Errorf("%w: the adapter of partition %q is a nil %T", adapter.ErrInvalidOption, p.Name, p.Adapter)
		case known != nil && p.Adapter != nil && !attached.Same(p.Adapter, known.adapter):
			return nil, fmt.Errorf("%w: partition %q has an adapter already", adapter.ErrInvalidOption, p.Name)
		}
		for _, other := range partitions {
			if other.Name != p.Name && attached.Same(p.Adapter, other.Adapter) {
				return nil, fmt.Errorf("%w: partitions %q and %q have the same adapter", adapter.ErrInvalidOption, p.Name, other.Name)
			}
		}
		seen[p.Name] = true
		if !p.Leaving {
			names = append(names, p.Name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%w: there is no partition", adapter.ErrInvalidOption)
	}
	slices.Sort(names)
	return names, nil
}

// Attach attaches the adapters of all partitions.
func (a *Adapter) Attach(r adapter.Receiver) error {
	if r == nil {
		return errors.New("partition: attach: nil receiver")
	}
	a.mu.Lock()
	switch {
	case a.closed:
		a.mu.Unlock()
		return fmt.Errorf("partition: attach: %w", adapter.ErrClosed)
	case a.receiver != nil:
		a.mu.Unlock()
		return errors.New("partition: attach: the adapter has a receiver already")
	}
	a.receiver = r
	a.keeper, _ = r.(adapter.HistoryReceiver)
	parts := a.sortedParts()
	a.mu.Unlock()
	for _, p := range parts {
		if err := p.adapter.Attach(p); err != nil {
			return fmt.Errorf("partition: attach %q: %w", p.name, err)
		}
		a.control.join(p)
	}
	a.goIfOpen(a.control.run)
	return nil
}

// sortedParts returns all partitions that have an adapter. The caller holds mu.
func (a *Adapter) sortedParts() []*part {
	parts := make([]*part, 0, len(a.parts))
	for _, p := range a.parts {
		parts = append(parts, p)
	}
	slices.SortFunc(parts, func(p, q *part) int {
		if p.name < q.name {
			return -1
		}
		return 1
	})
	return parts
}

// goIfOpen runs f on a goroutine that Close waits for. It reports false if the
// adapter is closed.
func (a *Adapter) goIfOpen(f func()) bool { return a.close.Go(f) }

// Health says which partitions are not healthy, which ones are missing, and
// what a change of partitions waits for.
func (a *Adapter) Health() error {
	a.mu.RLock()
	closed, parts := a.closed, a.sortedParts()
	missing := a.missing(a.view)
	a.mu.RUnlock()
	if closed {
		return fmt.Errorf("partition: %w", adapter.ErrClosed)
	}
	var errs []error
	for _, name := range missing {
		errs = append(errs, fmt.Errorf("partition %q: %w", name, errMissing))
	}
	for _, p := range parts {
		if err := p.problem(); err != nil {
			errs = append(errs, fmt.Errorf("partition %q: %w", p.name, err))
		}
	}
	if waits := a.control.waiting(); waits != "" {
		errs = append(errs, fmt.Errorf("partition: %s", waits))
	}
	return errors.Join(errs...)
}

// errMissing means that this hub does not have the partition of a room.
var errMissing = errors.New("it is current, but this hub was not given its adapter: call Change")

// Close closes the adapters of all partitions.
func (a *Adapter) Close(ctx context.Context) error {
	a.mu.Lock()
	a.closed = true
	parts := a.sortedParts()
	a.mu.Unlock()
	a.cancel()
	a.close.Begin(func() error { return a.shut(context.WithoutCancel(ctx), parts) })
	return a.close.Wait(ctx)
}

func (a *Adapter) shut(ctx context.Context, parts []*part) error {
	a.control.bye(ctx, parts)
	errs := make([]error, len(parts))
	var all sync.WaitGroup
	for i, p := range parts {
		all.Go(func() {
			if err := p.adapter.Close(ctx); err != nil {
				errs[i] = fmt.Errorf("partition %q: %w", p.name, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
