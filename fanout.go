package fanout

import (
	"context"
	"crypto/rand"
	"encoding/binary"
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
	"github.com/fanoutgo/fanout/internal/batch"
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
	"github.com/fanoutgo/fanout/internal/reading"
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

	everyone *room // its log has the messages to everyone; all members are in it

	mu            locks.RWMutex[locks.Hub] // guards all below, up to drained
	rooms         map[string]*room         // by channel
	members       map[uint64]*Member       // by number
	leaving       map[uint64]*Member       // that are finishing; they are not in members
	users         map[string]connections   // of each user
	everyoneHears bool                     // all members receive the messages to everyone
	drained       chan struct{}            // Drain was called; closed when no member is left

	inbox        inbox.Inbox
	inboxChannel string
	hellos       hellos.Hellos         // who the other hubs are
	lookout      lookout.Lookout       // which of them are there
	notices      notices.Sender        // sends what it tells them
	switchboard  questions.Switchboard // what they ask each other
	performer    performer.Performer   // carries out what they ask for
	announcer    announcer.Announcer   // who is in rooms with presence
	publishing   publishing.Env        // what publishing needs of the hub
	inboxes      publishing.Inboxes    // of hubs, to be published to
	numbers      publishing.Numbers    // of channels that are forgotten

	home         item.Home                               // of its members, for filters
	janitor      janitor                                 // what is idle
	pool         work.Pool                               // of histories
	reader       reading.Reader                          // of histories
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
	ops       *gate.Gate             // publishes, questions and commands in flight

	commandedJoins atomic.Int32 // for Selection.Join, under way
}

// New returns a Hub that uses the adapter a. With a nil adapter the hub shares
// its rooms with no other hub, not even of the same process. Nil options are
// the defaults. An option out of its range, or an adapter that is a nil
// pointer, is [ErrInvalidOption].
//
// The hub owns the adapter: Hub.Close closes it. If New fails it closes the
// adapter itself, which takes up to 5 s, unless the adapter belongs to another
// hub.
//
// New does not wait for the backend. A hub starts while the backend is down,
// and the first Join waits for it. If the backend refuses the hub's own
// channels, for example because rights are missing, the hub keeps trying. The
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

// newHub is New for an adapter that is not a nil pointer. It does not close the
// adapter.
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
	h.initReader()
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

// makeHub returns a hub without an adapter and without goroutines.
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
	h.id = hubID(h.num)
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
	h.everyone.life.Use() // it is never idle
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

// Stats are figures of a Hub. Hubs, Members, Users and Rooms are what there is
// now; the others count from the start of the hub, and never fall.
type Stats struct {
	Hubs    int // hubs that this one knows to be there, and itself
	Members int // members that are connected
	Users   int // users that these members belong to
	Rooms   int // rooms with members, lingering rooms, and rooms published to lately; users' channels count, too

	Published uint64 // messages that the backend took
	Frames    uint64 // frames that carried them: fewer, because of batching
	Received  uint64 // messages from the backend, including the hub's own
	Foreign   uint64 // of those, payloads that were not frames of a hub
	Repeated  uint64 // messages dropped because they had come before
	Missed    uint64 // messages known to be missing, once for each room

	Recovered uint64 // messages read from a history because they had not been received
	Reads     uint64 // readings of histories in the backend

	Interruptions uint64 // times that a room's subscription broke
	Malformed     uint64 // frames that could not be read
	// NotUnderstood counts messages of a newer release that this one cannot
	// deliver, because they have a field that has to be understood and that it
	// does not know. Each is reported to the members as missed, and is not
	// counted in Missed. It is counted when it is received, and again when it
	// is read from a history.
	NotUnderstood uint64
	Slow          uint64 // members closed with ErrSlow
}

type counters struct {
	published, frames, received, foreign, repeated, missed atomic.Uint64
	recovered, reads                                       atomic.Uint64
	interruptions, malformed, notUnderstood, slow          atomic.Uint64
}

// Stats returns the hub's figures.
func (h *Hub) Stats() Stats {
	h.mu.RLock()
	members, users, rooms := len(h.members), len(h.users), len(h.rooms)-1 // everyone's is no room
	h.mu.RUnlock()
	c := &h.stats
	return Stats{
		Hubs: len(h.known()), Members: members, Users: users, Rooms: rooms,
		Published: c.published.Load(), Frames: c.frames.Load(),
		Received: c.received.Load(), Foreign: c.foreign.Load(),
		Repeated: c.repeated.Load(), Missed: c.missed.Load(),
		Recovered: c.recovered.Load(), Reads: c.reads.Load(),
		Interruptions: c.interruptions.Load(), Malformed: c.malformed.Load(),
		NotUnderstood: c.notUnderstood.Load(),
		Slow:          c.slow.Load(),
	}
}

// notUnderstood counts messages that a newer release has sent, and that cannot
// be delivered. It may be called with locks held.
func (h *Hub) notUnderstood(channel string, n batch.NotUnderstood) {
	if n.Count == 0 {
		return
	}
	h.stats.notUnderstood.Add(uint64(n.Count))
	if h.unknownField.Due() {
		h.log.Warn("fanout: message not delivered, it has a field that this release does not know (said once a minute; see Stats.NotUnderstood)",
			"channel", channel, "field", n.Field)
	}
}

func (h *Hub) malformed(channel string, err error) {
	if h.stats.malformed.Add(1) == 1 {
		h.log.Error("fanout: frame dropped, is another program or version publishing here? (said once; see Stats.Malformed)",
			"channel", channel, "error", err)
	}
}

// historyUnreadable logs that a history cannot be read.
func (h *Hub) historyUnreadable(room string, err error) {
	if h.refused.Due() {
		h.log.Error("fanout: history cannot be read, what was missed is reported as a gap (said once a minute, for all rooms)",
			"room", room, "error", err)
	}
}

// Health returns nil if the hub can reach the backend: a message of its own has
// gone through the backend and come back, and the adapter reports that all its
// links are up. Otherwise the error says what does not work. Health waits until
// ctx ends, or until [Options.PublishTimeout] has passed if ctx has no
// deadline; a deadline of a second or two is usual.
func (h *Hub) Health(ctx context.Context) error {
	if h.isClosing() {
		return failed("health", ErrClosed)
	}
	if hc, ok := h.adapter.(adapter.HealthChecker); ok {
		if err := hc.Health(); err != nil {
			return failed("health", err)
		}
	}
	ctx, release := h.bound(ctx)
	defer release()
	if err := h.awaitOwn(ctx, nil); err != nil {
		return failed("health", fmt.Errorf("the hub's own channels are not subscribed: %w", err))
	}
	if err := h.echo(ctx); err != nil {
		return failed("health", fmt.Errorf("message through the backend to the hub itself: %w", err))
	}
	return nil
}
