package fanout

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/announcer"
	"github.com/fanoutgo/fanout/internal/async"
	"github.com/fanoutgo/fanout/internal/attached"
	"github.com/fanoutgo/fanout/internal/deadline"
	"github.com/fanoutgo/fanout/internal/gate"
	"github.com/fanoutgo/fanout/internal/hellos"
	"github.com/fanoutgo/fanout/internal/idle"
	"github.com/fanoutgo/fanout/internal/inbox"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/journal"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/lookout"
	"github.com/fanoutgo/fanout/internal/loopback"
	"github.com/fanoutgo/fanout/internal/notices"
	"github.com/fanoutgo/fanout/internal/performer"
	"github.com/fanoutgo/fanout/internal/publishing"
	"github.com/fanoutgo/fanout/internal/questions"
	"github.com/fanoutgo/fanout/internal/roomlog"
	"github.com/fanoutgo/fanout/internal/trial"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/fanoutgo/fanout/internal/work"
)

// A Hub is one process's end of the fan-out: its members, its rooms, one
// adapter. All methods may be called from any goroutine.
type Hub struct {
	id        string // 16 hexadecimal digits
	num       uint64 // the same as a number
	adapter   Adapter
	historian adapter.Historian // the adapter, if it is one
	alone     bool              // there is no backend: nothing ever waits
	opts      Options
	names     wire.Names
	limits    roomlog.SharedLimits[item.Entry]
	standard  *limits // as Options say
	stats     counters

	// ctx ends when the hub has drained and closes.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // all goroutines of the hub
	// publishes bounds a publish whose context has no deadline.
	publishes *deadline.Group

	own *trial.Trial
	log *journal.Journal

	everyone *room // its log has what is said to everyone; all members are in it

	mu            locks.RWMutex[locks.Hub] // guards all below, up to drained
	rooms         map[string]*room         // by channel
	members       map[uint64]*Member       // by number
	leaving       map[uint64]*Member       // that are finishing; they are not in members
	users         map[string]connections   // of each user
	everyoneHears bool                     // all members hear what is said to everyone
	drained       chan struct{}            // Drain was called; closed when no member is left

	inbox        inbox.Inbox
	inboxChannel string
	hellos       hellos.Hellos         // who the other hubs are
	lookout      lookout.Lookout       // which of them are there
	notices      notices.Sender        // sends what it tells them
	switchboard  questions.Switchboard // what they ask each other
	performer    performer.Performer   // does what they ask for
	announcer    announcer.Announcer   // who is in rooms with presence
	publishing   publishing.Env        // what publishing needs of the hub
	inboxes      publishing.Inboxes    // of hubs, to be published to
	numbers      publishing.Numbers    // of channels that are forgotten

	home         item.Home                               // of its members, for filters
	janitor      janitor                                 // what is idle
	pool         work.Pool                               // of histories
	unheard      journal.OncePerMinute                   // complains of users' channels that cannot be subscribed
	refused      journal.OncePerMinute                   // complains of histories that cannot be read
	unknownField journal.OncePerMinute                   // complains of messages that are not understood
	wakers       roomlog.Wakers[item.Entry, *membership] // of crowds
	publishers   async.Publishers                        // that do not wait
	readyCalls   readyCalls                              // members' OnReady
	events       events                                  // Options.OnJoin and OnLeave

	since      time.Time // the hub exists
	lastMember atomic.Uint64
	lastStream atomic.Uint64
	lastCopyID atomic.Uint64
	expelled   expulsions    // commands that took members out of rooms: see admission
	leftOut    atomic.Uint64 // number of arrivals that left out rooms: see exceptions

	open      context.Context // ends when Close is called, with ErrClosed
	shut      func()          // ends it
	closing   <-chan struct{} // its Done
	closed    chan struct{}   // closed when Close has done everything
	closeErr  error           // of Close; set before closed
	closeOnce sync.Once
	awaited   atomic.Pointer[string] // what Close is waiting for
	ops       *gate.Gate             // publishes in flight
}

// New returns a Hub that uses the adapter a. With a nil adapter the rooms exist
// in this process only. Nil options are the defaults. An option out of its
// range, or an adapter that is a nil pointer, is [ErrInvalidOption].
//
// The hub owns the adapter: Hub.Close closes it. If New fails it closes the
// adapter itself, which takes up to 5 s, unless the adapter belongs to another
// hub.
//
// New does not wait for the backend. A hub starts while the backend is down,
// and the first Join waits for it. If the backend refuses the hub's own
// channels, for example for want of rights, the hub goes on trying. The
// adapters made by sharded.Open and redis.Open of this module connect when they
// can, whereas rueidis.NewClient fails if it cannot connect.
func New(a Adapter, o *Options) (*Hub, error) {
	if attached.IsNil(a) {
		return nil, fmt.Errorf("fanout: new hub: %w: the adapter is a nil %T; for a hub without one give New nil itself", ErrInvalidOption, a)
	}
	h, err := newHub(a, o)
	if err != nil && a != nil && !adapters.Has(a) {
		ctx, cancel := context.WithTimeout(context.Background(), failedCloseTimeout)
		defer cancel()
		if closeErr := a.Close(ctx); closeErr != nil {
			err = fmt.Errorf("%w (closing the adapter: %v)", err, closeErr)
		}
	}
	return h, failed("new hub", err)
}

// failedCloseTimeout is how long New waits for an adapter that it closes
// because it fails.
const failedCloseTimeout = 5 * time.Second

// newHub is New for an adapter that is no nil pointer, and does not close it.
func newHub(a Adapter, o *Options) (*Hub, error) {
	opts, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	h := makeHub(opts)
	if a == nil {
		a, h.alone = loopback.New(h.janitor.sweeper.Wake), true
	}
	h.adapter = a
	h.historian, _ = a.(adapter.Historian)
	h.publishing.Adapter, h.publishing.Historian, h.publishing.Alone = a, h.historian, h.alone
	h.publishing.Async, _ = a.(adapter.AsyncPublisher)
	if err := a.Attach(receiver{h}); err != nil {
		return nil, fmt.Errorf("attaching the adapter: %w", err)
	}
	adapters.Add(a)
	if h.alone {
		h.subscribeOwn() // which does not wait
	} else {
		h.wg.Go(h.subscribeOwn)
	}
	h.wg.Go(h.janitor.run)
	h.wg.Go(h.announcer.Run)
	if !h.alone {
		h.wg.Go(h.sayHello)
		h.wg.Go(func() { h.lookout.Run(h.own.Done()) })
	}
	h.wakers.Start(runtime.GOMAXPROCS(0), h.wg.Go)
	return h, nil
}

// makeHub returns a hub without an adapter, that runs nothing.
func makeHub(opts Options) *Hub {
	var random [8]byte
	rand.Read(random[:]) // never fails
	h := &Hub{
		since:    time.Now(),
		num:      binary.BigEndian.Uint64(random[:]),
		opts:     opts,
		names:    wire.Names{Prefix: opts.Prefix},
		own:      trial.New(),
		expelled: expulsions{seed: maphash.MakeSeed()},
		log:      journal.New(opts.Logger, "", "fanout: log lines dropped, Options.Logger is too slow"),
		rooms:    make(map[string]*room),
		members:  make(map[uint64]*Member),
		leaving:  make(map[uint64]*Member),
		users:    make(map[string]connections),
		closed:   make(chan struct{}),
		ops:      gate.New(),
	}
	h.id = fmt.Sprintf("%016x", h.num)
	h.home = item.Home{ID: h.id, Arrival: func() uint64 { return h.leftOut.Add(1) }}
	var cancel, shut context.CancelCauseFunc
	h.ctx, cancel = context.WithCancelCause(context.Background())
	h.cancel = func() { cancel(ErrClosed) }
	h.open, shut = context.WithCancelCause(context.Background())
	h.shut, h.closing = func() { shut(ErrClosed) }, h.open.Done()
	h.publishes = deadline.NewGroup(h.ctx, opts.PublishTimeout,
		fmt.Errorf("Options.PublishTimeout (%v) is over: %w", opts.PublishTimeout, context.DeadlineExceeded))
	h.inboxChannel = h.names.Inbox(h.id)
	h.initPublishing()
	h.initNotices()
	h.pool.Init(h.ctx, h.wg.Go)
	h.publishers.Init(&async.Env{ // while operations are in flight the hub still waits for goroutines
		Ops: h.ops, Open: h.open, Bounds: h.publishes, Go: h.wg.Go, Explain: h.explain,
	}, opts.PublishBuffer)
	h.readyCalls.Call, h.readyCalls.Go = callReady, h.pool.Aside
	h.events.Call, h.events.Go = callEvent, h.pool.Aside
	h.standard = h.limitsOf(opts.Window, opts.Overflow)
	h.everyone = newRoom(h, "", h.names.Everyone(), nil, h.standard, nil)
	h.rooms[h.everyone.channel] = h.everyone
	h.janitor.hub, h.janitor.sweeper = h, idle.NewSweeper()
	return h
}

// ID returns the hub's ID: 16 hexadecimal digits, random.
func (h *Hub) ID() string { return h.id }

// Room returns a handle to a room. It is cheap, never returns nil, and the
// handle may be kept and used from any goroutine. If no room can have the name,
// the methods of the handle return [ErrInvalidRoom].
func (h *Hub) Room(name string) *Room {
	r := &Room{hub: h, name: name}
	if err := wire.CheckRoom(name); err != nil {
		r.err = fmt.Errorf("%w: %w", ErrInvalidRoom, err)
		return r
	}
	r.channel = h.names.Room(name)
	if i := len(h.names.Prefix) + len(":r:{"); i+len(name)+1 == len(r.channel) {
		r.name = r.channel[i : i+len(name)] // nothing was escaped: keep one string, not two
	}
	return r
}

func (h *Hub) isClosing() bool {
	select {
	case <-h.closing:
		return true
	default:
		return false
	}
}

// Close ends the hub. It finishes publishes that have begun; every later call,
// and every Join and Resume that is waiting, fails with [ErrClosed]. Then it
// closes the members and the adapter. When Close returns nil, no goroutine,
// subscription or connection of the hub is left.
//
// If ctx ends first, Close gives up the publishes and returns the error of ctx,
// which says what it was waiting for. The rest goes on in the background, until
// calls of the adapter, its Close, and callbacks of PublishAsync have returned.
// A second call waits for the first.
//
// At the end Close waits up to a second for [Options.Logger]. If the Logger
// does not return by then, the error says so, and one goroutine is left until
// it does.
func (h *Hub) Close(ctx context.Context) error {
	h.closeOnce.Do(func() {
		h.mu.Lock()
		h.shut()
		h.mu.Unlock()
		h.await("publishes under way, and callbacks of PublishAsync")
		h.ops.Close()
		go h.shutDown(ctx) // waited for below, through h.closed
	})
	select {
	case <-h.closed:
		return h.closeErr
	case <-ctx.Done():
		return fmt.Errorf("fanout: close: %w (waiting for %s)", context.Cause(ctx), *h.awaited.Load())
	}
}

// await notes what Close is waiting for.
func (h *Hub) await(what string) { h.awaited.Store(&what) }

// shutDown does the work of Close. ctx bounds how long publishes are awaited.
func (h *Hub) shutDown(ctx context.Context) {
	defer close(h.closed)
	select {
	case <-h.ops.Empty():
	case <-ctx.Done():
	}
	h.lookout.Leave(ctx, h.isDown)
	h.cancel()
	h.mu.Lock()
	members := make([]*Member, 0, len(h.members))
	for _, m := range h.members {
		members = append(members, m)
	}
	h.mu.Unlock()
	for _, m := range members {
		m.end(ErrClosed)
	}
	for _, m := range h.leavingMembers() {
		m.endNow()
	}
	h.await("the adapter to close")
	if err := h.adapter.Close(context.WithoutCancel(ctx)); err != nil {
		h.log.Error("fanout: closing the adapter", "hub", h.id, "error", err)
	}
	adapters.Remove(h.adapter)
	h.await("publishes that were given up, and callbacks of PublishAsync")
	<-h.ops.Empty()
	h.pool.Stop()
	h.wakers.Stop()
	h.wg.Wait()
	h.await("Options.Logger")
	select {
	case <-h.log.Stop():
	case <-time.After(loggerPatience):
		h.closeErr = errLoggerStuck
	}
}

// isDown reports whether the adapter knows that it cannot reach the backend.
func (h *Hub) isDown() bool {
	hc, ok := h.adapter.(adapter.HealthChecker)
	return ok && hc.Health() != nil
}

// loggerPatience is how long Hub.Close waits for Options.Logger after
// everything else has ended.
const loggerPatience = time.Second

var errLoggerStuck = errors.New("fanout: close: a call of Options.Logger has not returned; its goroutine is left until it does")

// bound returns ctx if it has a deadline; otherwise one that ends after
// Options.PublishTimeout, and with the hub. The caller releases it.
func (h *Hub) bound(ctx context.Context) (context.Context, func()) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	bounded, hold := h.publishes.Bound(ctx)
	return bounded, hold.Release
}

// begin begins an operation that Close waits for; h.ops.Leave(1) ends it.
func (h *Hub) begin() error {
	if !h.ops.Enter(1) {
		return ErrClosed
	}
	return nil
}

// adapters are those of this process's hubs. New closes an adapter when
// it fails, but not one that was given to a second hub by mistake.
var adapters attached.Adapters
