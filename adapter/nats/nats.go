package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"regexp"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/nats/internal/numbers"
	"github.com/nats-io/nats.go"
)

// Options configure an Adapter. The zero value, and nil, are the defaults.
type Options struct {
	// Prefix begins all subjects and, in upper case and with _ for each dot,
	// the names of all streams. It is the same on all hubs that share rooms.
	// Default "fanout".
	Prefix string

	// Partitions is the number of subjects that rooms are spread over, 1 to
	// 1024. It is the same on all hubs, and can be changed only by stopping all of
	// them and giving up the histories. Default 64: a hub with few rooms then gets
	// a small part of the traffic, and a server has at most 64 subjects for each
	// hub, and 64 streams.
	Partitions int

	// Linger is how long a hub stays subscribed to a partition after it has left
	// its last room there. Default 10 s; a negative Linger unsubscribes at once.
	Linger time.Duration

	// Replicas is how many servers keep a history: 1, 3 or 5. Default 3 if the
	// server is part of a cluster, otherwise 1. It counts when a stream is
	// made; streams that are there stay as they are.
	Replicas int

	// PingInterval is how often an idle connection is probed. It is given up
	// after two probes without an answer. Default 2 s.
	PingInterval time.Duration

	// Connect are options of the client: credentials, TLS, a name. The adapter
	// itself sets the options about reconnecting, pings and buffers. It also calls
	// the handlers that are given here.
	Connect []nats.Option

	// Logger gets warnings about connections that break or cannot be made. Default
	// slog.Default().
	Logger *slog.Logger
}

const (
	maxPartitions = 1024
	maxPast       = 64 // epochs that a history remembers

	beaconEvery = time.Second            // how often an adapter says how far it came
	tickEvery   = 100 * time.Millisecond // how often deadlines are looked at
	answerIn    = 300 * time.Millisecond // after which nobody waits for a hub's answer
	roundIn     = 3 * time.Second        // after which an ask that did not come back is repeated
	discovery   = 100 * time.Millisecond // in which hubs behind other servers answer
	flushIn     = 5 * time.Second        // in which the server has to take a frame
	inboxLen    = 16384                  // messages that wait for the reader
)

var validPrefix = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

func (o Options) withDefaults() (Options, error) {
	bad := func(format string, args ...any) (Options, error) {
		return o, fmt.Errorf("nats: %w: %s", adapter.ErrInvalidOption, fmt.Sprintf(format, args...))
	}
	if o.Prefix == "" {
		o.Prefix = "fanout"
	}
	if o.Partitions == 0 {
		o.Partitions = 64
	}
	if o.Linger == 0 {
		o.Linger = 10 * time.Second
	}
	if o.PingInterval == 0 {
		o.PingInterval = 2 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	switch {
	case !validPrefix.MatchString(o.Prefix) || len(o.Prefix) > 100:
		return bad("Prefix is %q, it must be letters, digits, _ and - with single dots between them", o.Prefix)
	case o.Partitions < 1 || o.Partitions > maxPartitions:
		return bad("Partitions is %d, it must be 1 to %d", o.Partitions, maxPartitions)
	case o.Replicas != 0 && o.Replicas != 1 && o.Replicas != 3 && o.Replicas != 5:
		return bad("Replicas is %d, it must be 1, 3 or 5", o.Replicas)
	case o.PingInterval < 0:
		return bad("PingInterval is %v, it must not be negative", o.PingInterval)
	}
	return o, nil
}

// An Adapter is an adapter.Adapter, an adapter.AsyncPublisher, an
// adapter.Historian and an adapter.HealthChecker. Make one for each hub.
type Adapter struct {
	o    Options
	id   numbers.ID
	opts nats.Options

	life   context.Context // ends with Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup // the adapter's goroutines
	closed chan struct{}  // closed when Close is done
	tried  chan struct{}  // closed when the first attempt to connect has come to an end

	inbox   chan *nats.Msg // everything that is subscribed, in the order of the connection
	changes chan struct{}  // for the reader: a link or a right has changed
	work    chan struct{}  // for the keeper: something is to be subscribed
	out     queue
	heads   heads // of histories
	claims  claims
	streams streams

	mu          sync.Mutex // guards all below; no call of others is made under it
	receiver    adapter.Receiver
	kept        adapter.HistoryReceiver // receiver, if it is one
	closing     bool
	link        link
	tracker     *numbers.Tracker
	partitions  []partition
	channels    map[string]*channel
	pending     map[*channel]struct{} // those that are not live
	unconfirmed int                   // those of them that have been live, and are lost
	broke       uint64                // of link.breaks, how many were dealt with
	round       *round
	rounds      uint64
	lastKept    []uint64 // by partition: the last number that this adapter has seen of its stream
	misfit      error    // another adapter has other options
	misfitAt    time.Time
	busy        *channel // the receiver is called for it
	idle        *sync.Cond
}

var (
	_ adapter.Adapter        = (*Adapter)(nil)
	_ adapter.AsyncPublisher = (*Adapter)(nil)
	_ adapter.Historian      = (*Adapter)(nil)
	_ adapter.HealthChecker  = (*Adapter)(nil)
)

// New returns an adapter that connects to the servers of url, which are
// separated by commas, when it is attached. Nil options are the defaults.
//
// Connecting is tried again until it succeeds or the adapter is closed,
// whatever the reason. Append and History wait for the first attempt. The
// errors of New are options that cannot be (adapter.ErrInvalidOption).
func New(url string, o *Options) (*Adapter, error) {
	if o == nil {
		o = new(Options)
	}
	opts, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	a := &Adapter{
		o:          opts,
		id:         numbers.ID(rand.Uint64()),
		closed:     make(chan struct{}),
		tried:      make(chan struct{}),
		inbox:      make(chan *nats.Msg, inboxLen),
		changes:    make(chan struct{}, 1),
		work:       make(chan struct{}, 1),
		tracker:    numbers.New(opts.Partitions),
		partitions: make([]partition, opts.Partitions),
		channels:   make(map[string]*channel),
		pending:    make(map[*channel]struct{}),
		lastKept:   make([]uint64, opts.Partitions),
	}
	a.streams = streams{known: make(map[int]*stream), fresh: make(map[int]bool), behind: make(map[string]time.Time)}
	a.idle = sync.NewCond(&a.mu)
	a.life, a.cancel = context.WithCancel(context.Background())
	a.out.init(opts.Partitions)
	for p := range a.partitions {
		a.partitions[p] = partition{index: p, channels: make(map[string]*channel)}
	}
	if a.opts, err = a.clientOptions(url); err != nil {
		return nil, err
	}
	return a, nil
}

// Attach implements adapter.Adapter.
func (a *Adapter) Attach(r adapter.Receiver) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.closing:
		return fmt.Errorf("nats: attach: %w", adapter.ErrClosed)
	case a.receiver != nil:
		return errors.New("nats: attached already")
	}
	a.receiver = r
	a.kept, _ = r.(adapter.HistoryReceiver)
	a.out.sent.Add(2)
	a.tasks.Go(a.connectFirst)
	a.tasks.Go(a.read)
	a.tasks.Go(a.keep)
	a.tasks.Go(a.send)
	a.tasks.Go(a.confirm)
	return nil
}

// Health implements adapter.HealthChecker.
func (a *Adapter) Health() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.healthLocked()
}

func (a *Adapter) healthLocked() error {
	switch {
	case a.closing:
		return fmt.Errorf("nats: %w", adapter.ErrClosed)
	case !a.link.up && a.link.err != nil:
		return fmt.Errorf("nats: not connected: %w", a.link.err)
	case !a.link.up:
		return errors.New("nats: not connected")
	case a.unconfirmed > 0:
		return fmt.Errorf("nats: the subscriptions of %d rooms are not confirmed", a.unconfirmed)
	case a.misfit != nil:
		return a.misfit
	}
	return a.out.stalled()
}

// Close implements adapter.Adapter.
func (a *Adapter) Close(ctx context.Context) error {
	a.mu.Lock()
	first := !a.closing
	a.closing = true
	a.mu.Unlock()
	if first {
		go func() {
			defer close(a.closed)
			a.shut()
		}()
	}
	select {
	case <-a.closed:
		return nil
	default:
	}
	select {
	case <-a.closed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("nats: close: %w", context.Cause(ctx))
	}
}

// shut ends everything and waits for it.
func (a *Adapter) shut() {
	a.out.close() // the sender says goodbye
	a.cancel()
	a.mu.Lock()
	for name := range a.channels {
		a.dropLocked(name)
	}
	nc := a.link.nc
	a.mu.Unlock()
	a.out.sent.Wait()
	if nc != nil {
		nc.Close()
	}
	a.tasks.Wait()
	a.mu.Lock()
	nc = a.link.nc // made meanwhile
	a.mu.Unlock()
	if nc != nil {
		nc.Close()
	}
}

// bound returns a context that ends with ctx and with the adapter.
func (a *Adapter) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(a.life, func() { cancel(adapter.ErrClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

func (a *Adapter) subject(p int) string { return fmt.Sprintf("%s.p.%d", a.o.Prefix, p) }
func (a *Adapter) syncSubject() string  { return a.o.Prefix + ".sync" }

// signal wakes the receiver of c, now or when it next waits.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
