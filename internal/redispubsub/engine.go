package redispubsub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/clock"
	"github.com/fanoutgo/fanout/internal/deadline"
	"github.com/fanoutgo/fanout/internal/gate"
	"github.com/fanoutgo/fanout/internal/journal"
	"github.com/fanoutgo/fanout/internal/wire"
)

// A Config says which Pub/Sub an Engine uses, and how.
type Config struct {
	Name          string // of the adapter, in errors and logs
	Sharded       bool
	ReadFrom      ReadFrom      // where rooms are subscribed in a cluster
	ProbeInterval time.Duration // 0: the default, 2 s; negative: no probes
	ProbeTimeout  time.Duration // 0: the default, 5 s
	Logger        *slog.Logger  // nil: slog.Default()
}

// withDefaults fills in the defaults, or returns what is wrong.
func (cfg Config) withDefaults() (Config, error) {
	if cfg.ProbeInterval == 0 {
		cfg.ProbeInterval = 2 * time.Second
	}
	if cfg.ProbeTimeout == 0 {
		cfg.ProbeTimeout = 5 * time.Second
	}
	if cfg.ProbeTimeout < 0 {
		return cfg, fmt.Errorf("%w: %s: ProbeTimeout is %v, it must be positive", adapter.ErrInvalidOption, cfg.Name, cfg.ProbeTimeout)
	}
	if err := cfg.ReadFrom.check(cfg); err != nil {
		return cfg, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return cfg, nil
}

// An Engine is an adapter; see adapter.Adapter for the methods.
type Engine struct {
	client    rueidis.Client
	cfg       Config
	mode      mode
	id        string // distinguishes our probes from those of others
	receiver  adapter.Receiver
	keeper    adapter.HistoryReceiver // the receiver, if it is one
	library   library
	ways      atomic.Uint32           // a bit for each way that was logged
	usual     atomic.Pointer[keeping] // how some node keeps histories, without a connection
	connected atomic.Bool             // the first server was logged
	split     atomic.Bool             // one server hides many shards; see link.split
	refusals  refusals
	limits    limits
	roles     roles
	readers   readers
	feds      atomic.Uint64 // sessions at replicas so far
	inspector inspector
	journal   *journal.Journal

	ctx    context.Context // ends when the engine is closed
	cancel context.CancelFunc
	// attempts bounds the time of one attempt, so that a silent server does not
	// hold up a call (the next attempt may ask another server) or Close.
	attempts *deadline.Group
	ops      *gate.Gate     // calls in flight, except those that wait for a subscription
	wg       sync.WaitGroup // all goroutines
	closed   chan struct{}  // closed when Close has done everything

	topology topology

	mu       sync.RWMutex // guards all below
	subs     map[string]*sub
	links    map[linkKey]*link
	attached bool
	closing  bool
}

// New returns an engine that uses a client. The caller closes the client, after
// the engine. Nothing is sent before the first call.
func New(client rueidis.Client, cfg Config) (*Engine, error) {
	if client == nil {
		return nil, fmt.Errorf("%s: the client is nil; make one with rueidis.NewClient", cfg.Name)
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	e := &Engine{
		client: client,
		cfg:    cfg,
		mode:   modeOf(cfg.Sharded, client.Mode()),
		id:     fmt.Sprintf("%016x", rand.Uint64()),
		closed: make(chan struct{}),
		ops:    gate.New(),
		subs:   make(map[string]*sub),
		links:  make(map[linkKey]*link),
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.attempts = deadline.NewGroup(e.ctx, cfg.ProbeTimeout, fmt.Errorf("%w within %v", errSilent, cfg.ProbeTimeout))
	e.topology.init(e)
	e.roles.init(e)
	e.readers.init(e)
	e.limits.asking = make(chan struct{}, 1)
	e.limits.nodes = make(map[string]int64)
	e.inspector.init(e)
	e.journal = journal.New(cfg.Logger, cfg.Name+": ", "log lines dropped, Options.Logger is too slow")
	e.library.loading = make(chan struct{}, 1)
	if cfg.ReadFrom >= ReadReplicas && !e.spreads() {
		e.journal.Warn("rooms are read from the primary: only a cluster with sharded Pub/Sub has replicas that can be read from")
	}
	return e, nil
}

// Attach implements adapter.Adapter.
func (e *Engine) Attach(r adapter.Receiver) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closing:
		return e.errClosed()
	case e.attached:
		return errAttached(e.cfg)
	}
	e.attached, e.receiver = true, r
	e.keeper, _ = r.(adapter.HistoryReceiver)
	e.wg.Go(e.topology.run)
	e.wg.Go(e.inspector.run)
	return nil
}

func errAttached(cfg Config) error {
	return fmt.Errorf("%s: this adapter has a hub already; make one adapter for each hub", cfg.Name)
}

func (e *Engine) errClosed() error { return fmt.Errorf("%s: %w", e.cfg.Name, adapter.ErrClosed) }

// Subscribe implements adapter.Adapter.
func (e *Engine) Subscribe(ctx context.Context, channel string) error {
	if ctx.Err() != nil {
		_ = e.Unsubscribe(ctx, channel) // by the contract it is not subscribed then, even if it was before
		return context.Cause(ctx)
	}
	e.mu.Lock()
	if e.closing {
		e.mu.Unlock()
		return e.errClosed()
	}
	s := e.subs[channel]
	isNew := s == nil
	if isNew {
		s = &sub{
			engine: e, channel: channel, slot: e.mode.slot(channel), wanted: true, since: clock.Now(),
			spread: e.spreads() && wire.IsRoom(channel),
		}
		e.subs[channel] = s
	}
	e.mu.Unlock()
	if isNew {
		e.place(s, e.topology.owner(s.slot))
	}
	err := s.await(ctx, 0)
	if err == nil {
		return nil
	}
	if why := e.trouble(s); why != nil && ctx.Err() != nil {
		err = fmt.Errorf("%s: subscribing to %s: %w (last: %w)", e.cfg.Name, channel, err, why)
	}
	e.drop(s)
	return err
}

// trouble returns why a subscription is not confirmed; nil if the reason is not
// known.
func (e *Engine) trouble(s *sub) error {
	home, _, _ := s.state()
	if home == nil {
		return e.topology.trouble()
	}
	if why := home.trouble(); why != nil {
		return linkError(home.addr, why)
	}
	return nil
}

// linkError says which link an error is about, unless the error does.
func linkError(addr string, err error) error {
	if strings.Contains(err.Error(), addr) {
		return fmt.Errorf("link: %w", err)
	}
	return fmt.Errorf("link to %s: %w", addr, err)
}

// Unsubscribe implements adapter.Adapter.
func (e *Engine) Unsubscribe(_ context.Context, channel string) error {
	e.mu.RLock()
	s := e.subs[channel]
	e.mu.RUnlock()
	if s != nil {
		e.drop(s)
	}
	return nil
}

// drop ends a subscription. Once it has returned the receiver gets nothing more
// of it. The link tells the server later.
func (e *Engine) drop(s *sub) {
	e.mu.Lock()
	if e.subs[s.channel] == s {
		delete(e.subs, s.channel)
	}
	e.mu.Unlock()
	s.placing.Lock()
	defer s.placing.Unlock()
	if l := s.end(); l != nil {
		l.release(s)
	}
}

// place gives a sub a home: the link to the owner of its slot, or to a replica
// of the owner if the sub is read there. If the owner is "" the topology looks
// for a home. place waits for a running call of the receiver for the sub's
// channel, so the caller must hold no lock.
func (e *Engine) place(s *sub, owner string) {
	if owner != "" && e.put(s, owner) {
		e.topology.note(s.slot, owner)
	}
	if owner == "" && e.put(s, "") {
		e.topology.ask()
	}
}

// put is place without telling the topology. It reports whether the sub is
// wanted.
func (e *Engine) put(s *sub, owner string) bool {
	s.placing.Lock()
	defer s.placing.Unlock()
	var l *link
	if owner != "" {
		if l = e.claim(e.readers.home(s, owner)); l == nil {
			return false // the engine is closed
		}
		defer l.unclaim()
	}
	old, ok := s.move(l)
	if !ok {
		return false
	}
	if l != nil {
		l.seat(s)
	}
	if old != nil && old != l {
		old.release(s)
	}
	return true
}

// claim returns the link with a key, and makes it if there is none. The link is
// not retired before the caller calls unclaim. The result is nil if the engine
// is closed.
func (e *Engine) claim(key linkKey) *link {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing {
		return nil
	}
	l := e.links[key]
	if l == nil {
		l = newLink(e, key)
		e.links[key] = l
		e.wg.Go(l.run)
	}
	l.mu.Lock()
	l.claims++
	l.mu.Unlock()
	return l
}

// link returns the link to a primary; nil if there is none.
func (e *Engine) link(addr string) *link {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.links[linkKey{addr: addr}]
}

// all returns the current subs.
func (e *Engine) all() []*sub {
	e.mu.RLock()
	defer e.mu.RUnlock()
	list := make([]*sub, 0, len(e.subs))
	for _, s := range e.subs {
		list = append(list, s)
	}
	return list
}

// Health implements adapter.HealthChecker.
func (e *Engine) Health() error {
	e.mu.RLock()
	closing := e.closing
	links := make([]*link, 0, len(e.links))
	for _, l := range e.links {
		links = append(links, l)
	}
	e.mu.RUnlock()
	if closing {
		return e.errClosed()
	}
	var errs []error
	for _, l := range links {
		if err := l.health(); err != nil && !(errors.Is(err, errDialing) && l.age() < e.cfg.ProbeTimeout) {
			errs = append(errs, fmt.Errorf("%s: %w", e.cfg.Name, linkError(l.addr, explain(err))))
		}
	}
	errs = append(errs, e.topology.troubles()...)
	if len(errs) == 0 {
		errs = append(errs, e.unconfirmed())
	}
	errs = append(errs, e.refusals.health(e.cfg.Name))
	return errors.Join(errs...)
}

// unconfirmed returns an error if subscriptions that should be confirmed are
// not.
func (e *Engine) unconfirmed() error {
	waiting := 0
	var why error
	for _, s := range e.all() {
		if s.overdue(e.cfg.ProbeTimeout) && e.has(s) {
			waiting++
			if why == nil {
				why = e.trouble(s)
			}
		}
	}
	switch {
	case waiting == 0:
		return nil
	case why == nil:
		return fmt.Errorf("%s: %d subscriptions are not confirmed", e.cfg.Name, waiting)
	}
	return fmt.Errorf("%s: %d subscriptions are not confirmed: %w", e.cfg.Name, waiting, why)
}

// has reports whether a sub of all is still there. It is gone before it ends,
// so one that has ended in between is not taken for one that was lost.
func (e *Engine) has(s *sub) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.subs[s.channel] == s
}

// Close implements adapter.Adapter.
func (e *Engine) Close(ctx context.Context) error {
	e.mu.Lock()
	first := !e.closing
	e.closing = true
	if first {
		e.ops.Close() // before e.ctx ends, so that their error is ErrClosed
	}
	e.mu.Unlock()
	if first {
		e.cancel()
		go func() { // waited for below
			for _, s := range e.all() {
				s.end() // which waits for the receiver
			}
			<-e.ops.Empty() // calls in flight may begin goroutines
			e.wg.Wait()
			if nodes := e.topology.nodes.Load(); nodes != nil {
				for _, p := range *nodes {
					p.keeper.close()
				}
			}
			e.wg.Wait()
			<-e.journal.Stop()
			close(e.closed)
		}()
	}
	select {
	case <-e.closed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: close: %w", e.cfg.Name, context.Cause(ctx))
	}
}
