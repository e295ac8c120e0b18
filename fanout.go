package fanout

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/deadline"
	"github.com/fanoutgo/fanout/internal/gate"
	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/wire"
)

// A Hub is one process's end of the fan-out: its members, its rooms, one
// adapter. All methods may be called from any goroutine.
type Hub struct {
	id        string // 16 hexadecimal digits
	num       uint64 // the same as a number
	adapter   Adapter
	historian adapter.Historian      // the adapter, if it is one
	async     adapter.AsyncPublisher // the adapter, if it is one
	alone     bool                   // there is no backend: nothing ever waits
	opts      Options
	names     wire.Names
	limits    roomLimits
	stats     counters

	// ctx ends when the hub has drained and closes.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // all goroutines of the hub
	// publishes bounds a publish whose context has no deadline.
	publishes *deadline.Group

	own *ownChannels
	log *logQueue

	everyone *roomState // its log has what is said to everyone; all members are in it

	mu      locks.RWMutex[locks.Hub] // guards rooms and members
	rooms   map[string]*roomState    // by channel
	members map[uint64]*Member       // by number
	hearing bool                     // all members hear what is said to everyone

	inbox   inbox
	outbox  map[string]*outbound // to other hubs' inboxes, by hub ID. Guarded by outMu
	outMu   locks.Mutex[locks.Outbox]
	numbers numbers      // of channels that are forgotten
	janitor janitor      // what is idle
	readers readers      // of histories
	refused occasionally // complains of histories that cannot be read
	wakers  wakers       // who wakes crowds
	acks    ackQueue     // publishers that do not wait
	buffer  buffer       // what they have under way

	lastMember atomic.Uint64
	lastStream atomic.Uint64
	lastCopyID atomic.Uint64
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

// New returns a Hub on a. With a nil adapter the rooms live in this process
// alone. Nil options are the defaults; an option out of its range is
// ErrInvalidOption, and so is an adapter that is a nil pointer.
//
// The hub owns the adapter from here on, and closes it. If New fails it has
// closed the adapter, unless that belongs to another hub, waiting no longer than
// 5 s.
//
// New does not wait for the backend: a hub starts while it is down, and the
// first Join waits for it. What the backend refuses the hub itself, for example
// for want of rights, it tries again as long as it lives. The adapters that
// sharded.Open and redis.Open of this module return connect when they can; a
// client that is made by rueidis.NewClient fails instead.
func New(a Adapter, o *Options) (*Hub, error) {
	if isNil(a) {
		return nil, fmt.Errorf("fanout: new hub: %w: the adapter is a nil %T; for a hub without one give New nil itself", ErrInvalidOption, a)
	}
	h, err := newHub(a, o)
	if err != nil && a != nil && !attached.has(a) {
		ctx, cancel := context.WithTimeout(context.Background(), failedCloseTimeout)
		defer cancel()
		if closeErr := a.Close(ctx); closeErr != nil {
			err = fmt.Errorf("%w (closing the adapter: %v)", err, closeErr)
		}
	}
	return h, failed("new hub", err)
}

// failedCloseTimeout is how long New waits for an adapter that it closes because
// it fails.
const failedCloseTimeout = 5 * time.Second

// newHub is New for an adapter that is no nil pointer, and does not close it.
func newHub(a Adapter, o *Options) (*Hub, error) {
	opts, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	alone := a == nil
	if alone {
		a = newLoopback()
	}
	var random [8]byte
	rand.Read(random[:]) // never fails
	h := &Hub{
		num:     binary.BigEndian.Uint64(random[:]),
		adapter: a,
		alone:   alone,
		opts:    opts,
		names:   wire.Names{Prefix: opts.Prefix},
		own:     newOwnChannels(),
		log:     newLogQueue(opts.Logger),
		rooms:   make(map[string]*roomState),
		members: make(map[uint64]*Member),
		outbox:  make(map[string]*outbound),
		closed:  make(chan struct{}),
		ops:     gate.New(),
	}
	h.id = fmt.Sprintf("%016x", h.num)
	var cancel context.CancelCauseFunc
	h.ctx, cancel = context.WithCancelCause(context.Background())
	h.cancel = func() { cancel(ErrClosed) }
	var shut context.CancelCauseFunc
	h.open, shut = context.WithCancelCause(context.Background())
	h.shut, h.closing = func() { shut(ErrClosed) }, h.open.Done()
	h.publishes = deadline.NewGroup(h.ctx, opts.PublishTimeout,
		fmt.Errorf("Options.PublishTimeout (%v) is over: %w", opts.PublishTimeout, context.DeadlineExceeded))
	h.inbox = inbox{hub: h, channel: h.names.Inbox(h.id)}
	h.readers.hub = h
	h.historian, _ = a.(adapter.Historian)
	h.async, _ = a.(adapter.AsyncPublisher)
	h.acks.Call, h.acks.Go = h.callBack, h.wg.Go // while operations are in flight the hub still waits for goroutines
	h.buffer.limit = int64(opts.PublishBuffer)
	h.limits.init(&opts)
	h.everyone = newRoomState(h, "", h.names.Everyone(), nil, h.limits.standard)
	h.rooms[h.everyone.channel] = h.everyone
	h.janitor.hub = h
	h.janitor.kick = make(chan struct{}, 1)
	if err := a.Attach(receiver{h}); err != nil {
		return nil, fmt.Errorf("attaching the adapter: %w", err)
	}
	attached.add(a)
	h.wg.Go(h.subscribeOwn)
	h.wg.Go(h.janitor.run)
	h.wakers.start(h)
	return h, nil
}

// ID returns the hub's ID: 16 hexadecimal digits, random.
func (h *Hub) ID() string { return h.id }

// MemberOptions describe a member.
type MemberOptions struct {
	// Info is what the application wants to know of the member, in its own
	// format. The hub keeps a copy.
	Info []byte
}

// Connect returns a new Member of the hub. It is in no room. Direct messages
// and those to everyone reach it from the return of its first Join at the
// latest. Nil options are the defaults. Close the Member when its connection
// ends. The only error is ErrClosed.
func (h *Hub) Connect(o *MemberOptions) (*Member, error) {
	m := &Member{hub: h, num: h.lastMember.Add(1)}
	if o != nil && len(o.Info) > 0 {
		m.extras().info = slices.Clone(o.Info)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.isClosing() {
		return nil, failed("connect", ErrClosed)
	}
	h.members[m.num] = m
	if h.hearing {
		h.everyone.mu.Lock()
		m.hear()
		h.everyone.mu.Unlock()
	}
	return m, nil
}

// hear makes a member hear what is said to everyone.
func (m *Member) hear() {
	m.hub.mu.AssertHeld()
	m.hub.everyone.mu.AssertHeld()
	ms := new(membership)
	ms.init(m, m.hub.everyone)
	m.hub.everyone.open(ms)
	ms.cursor.Park()
	m.extras().everyone = ms
}

// hearEveryone makes all members hear what is said to everyone. It is called
// before anything is: most hubs say nothing to everyone, and a cursor for each
// member would be a third of what an idle one costs.
func (h *Hub) hearEveryone() {
	h.mu.RLock()
	hearing := h.hearing
	h.mu.RUnlock()
	if hearing {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hearing {
		return
	}
	h.hearing = true
	h.everyone.mu.Lock()
	defer h.everyone.mu.Unlock()
	for _, m := range h.members {
		m.hear()
	}
}

// Room returns a handle to a room. It costs next to nothing, is never nil, and
// may be kept and used from any goroutine. A name that no room can have
// (ErrInvalidRoom) is reported by the handle's methods.
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

// hubOf returns the hub's part of a member ID.
func hubOf(memberID string) (string, error) {
	hub, n, ok := strings.Cut(memberID, "-")
	if ok && len(hub) == 16 && n != "" {
		if _, err := strconv.ParseUint(hub, 16, 64); err == nil && hub == strings.ToLower(hub) {
			return hub, nil
		}
	}
	return "", fmt.Errorf("%w: %q is no member ID; Member.ID returns one", ErrInvalidMember, memberID)
}

// Health returns nil when the hub's way to the backend works: a message of its
// own has gone through the backend and come back, and the adapter says that all
// its links are up (see HealthChecker). Otherwise it says what does not work. It
// waits no longer than ctx, or Options.PublishTimeout if ctx has no deadline;
// give it one of a second or two.
func (h *Hub) Health(ctx context.Context) error {
	if h.isClosing() {
		return failed("health", ErrClosed)
	}
	if hc, ok := h.adapter.(adapter.HealthChecker); ok {
		if err := hc.Health(); err != nil {
			return fmt.Errorf("fanout: health: %w", err)
		}
	}
	ctx, release := h.bound(ctx)
	defer release()
	if err := h.awaitOwn(ctx, nil); err != nil {
		return fmt.Errorf("fanout: health: the hub's own channels are not subscribed: %w", err)
	}
	if err := h.inbox.echo(ctx); err != nil {
		return fmt.Errorf("fanout: health: message through the backend to the hub itself: %w", err)
	}
	return nil
}

func (h *Hub) isClosing() bool {
	select {
	case <-h.closing:
		return true
	default:
		return false
	}
}

// Close ends the hub. Publishes that have begun are finished; everything asked
// for from now on is ErrClosed, and so are calls of Join and Resume that wait.
// Then the members are closed, the adapter too, and when Close returns nil no
// goroutine, subscription or connection of the hub's is left.
//
// If ctx ends first, publishes in flight are given up and Close returns the
// error of ctx, which says what it was waiting for, while the rest goes on in
// the background: until calls of the adapter and its Close have returned, which
// is up to the adapter, and callbacks of PublishAsync, which is up to those. A
// second call waits for the first.
//
// When all else has ended, Close waits a second for Options.Logger. If that does
// not return by then, the error says so, and a goroutine is left until it does.
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
	h.await("the adapter to close")
	if err := h.adapter.Close(context.WithoutCancel(ctx)); err != nil {
		h.log.error("fanout: closing the adapter", "hub", h.id, "error", err)
	}
	attached.remove(h.adapter)
	h.await("publishes that were given up, and callbacks of PublishAsync")
	<-h.ops.Empty()
	h.readers.stop()
	h.wakers.stop()
	h.wg.Wait()
	h.await("Options.Logger")
	if !h.log.stop(logPatience) {
		h.closeErr = errLoggerStuck
	}
}

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

// begin begins n operations that Close waits for, until so many h.ops.Leave.
func (h *Hub) begin(n int) error {
	if !h.ops.Enter(n) {
		return ErrClosed
	}
	return nil
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
