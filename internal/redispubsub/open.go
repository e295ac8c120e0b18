package redispubsub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/backoff"
	"github.com/redis/rueidis"
)

// A Backend has all methods of the adapters. It is an Engine or an Opened.
type Backend interface {
	adapter.Adapter
	adapter.AsyncPublisher
	adapter.Historian
	adapter.HealthChecker
}

var (
	_ Backend = (*Engine)(nil)
	_ Backend = (*Opened)(nil)
)

// closeGrace is how long Close of an Opened waits for the client to close its
// connections, before it closes them itself.
const closeGrace = time.Second

// An Opened is an Engine with a client of its own. It tries to make the client
// until it can reach the servers; calls wait until then.
type Opened struct {
	cfg    Config
	option rueidis.ClientOption
	conns  conns

	ctx       context.Context // ends when Close begins
	cancel    context.CancelFunc
	engine    atomic.Pointer[Engine] // nil: not connected yet
	connected chan struct{}          // closed when there is an engine
	done      chan struct{}          // closed when connect has returned; see Attach
	closed    chan struct{}          // closed when Close has done everything

	mu       sync.Mutex // guards all below
	attached bool
	closing  bool
	why      error // why there is no connection
	logged   time.Time
}

// Open returns an engine that makes its own client and closes it. It fails if
// the options can never work.
func Open(option rueidis.ClientOption, cfg Config) (*Opened, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	option.DisableCache = true
	option.InitAddress = slices.Clone(option.InitAddress) // the client may shuffle it
	if err := checkOption(option); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", adapter.ErrInvalidOption, cfg.Name, err)
	}
	o := &Opened{
		cfg:       cfg,
		option:    option,
		connected: make(chan struct{}),
		done:      make(chan struct{}),
		closed:    make(chan struct{}),
		why:       errDialing,
	}
	o.ctx, o.cancel = context.WithCancel(context.Background())
	o.option.DialCtxFn = o.conns.dialer(o.ctx, dialerOf(option))
	return o, nil
}

// errTrial is the error of dialing while options are checked.
var errTrial = errors.New("options are tried")

// checkOption returns what is wrong with options. It does not connect: the
// client checks nearly all options before it dials.
func checkOption(option rueidis.ClientOption) error {
	if len(option.InitAddress) == 0 {
		return errors.New("InitAddress is empty, it must have the address of a server")
	}
	if option.DialCtxFn == nil && option.DialFn == nil {
		for _, addr := range option.InitAddress {
			if _, _, err := net.SplitHostPort(addr); err != nil {
				return fmt.Errorf("InitAddress %q is not host:port: %w", addr, err)
			}
		}
	}
	if option.ClusterOption.ShardsRefreshInterval < 0 {
		return rueidis.ErrInvalidShardsRefreshInterval
	}
	option.DialCtxFn = func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) { return nil, errTrial }
	client, err := rueidis.NewClient(option)
	if client != nil {
		client.Close()
	}
	if errors.Is(err, errTrial) {
		return nil
	}
	return err
}

// Attach implements adapter.Adapter.
func (o *Opened) Attach(r adapter.Receiver) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.closing:
		return o.errClosed()
	case o.attached:
		return errAttached(o.cfg)
	}
	o.attached = true
	go o.connect(r) // Close waits for it, through o.done
	return nil
}

func (o *Opened) errClosed() error { return fmt.Errorf("%s: %w", o.cfg.Name, adapter.ErrClosed) }

// connect makes the client and the engine. It tries again until Close.
func (o *Opened) connect(r adapter.Receiver) {
	defer close(o.done)
	var pause backoff.Backoff
	for o.ctx.Err() == nil {
		client, err := o.newClient()
		if err == nil {
			o.start(client, r)
			return
		}
		o.failed(err)
		pause.Wait(o.ctx)
	}
}

// newClient makes a client that has found its servers.
func (o *Opened) newClient() (rueidis.Client, error) {
	client, err := rueidis.NewClient(o.option)
	switch {
	case err != nil && client != nil:
		client.Close()
	case err == nil && o.noSlots(client):
		client.Close()
		err = errNoNodes
	}
	if err != nil {
		return nil, fmt.Errorf("%s: connecting to %s: %w", o.cfg.Name, strings.Join(o.option.InitAddress, ", "), o.explain(err))
	}
	return client, nil
}

// noSlots reports whether a client has found a cluster that has no slots yet.
func (o *Opened) noSlots(client rueidis.Client) bool {
	if client.Mode() != rueidis.ClientModeCluster {
		return false
	}
	ctx, cancel := context.WithTimeout(o.ctx, askTimeout)
	defer cancel()
	err := client.Do(ctx, client.B().Exists().Key("fanout").Build()).Error() // it sends nothing if it knows no node
	return len(client.Nodes()) == 0 || errors.Is(err, rueidis.ErrNoSlot)
}

// explain is the function explain for errors of the client's constructor.
func (o *Opened) explain(err error) error {
	hungUp := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	// A server that closes the connection at once may do so before its alert has
	// been read, which then is lost.
	wantsCertificate := hungUp || strings.Contains(err.Error(), "certificate required")
	switch {
	case hungUp && o.option.TLSConfig == nil:
		return fmt.Errorf("the server hung up: it may expect TLS (TLSConfig of the client's options): %w", err)
	case wantsCertificate && withoutCertificate(o.option.TLSConfig):
		return fmt.Errorf("the server may want a client certificate (Certificates in TLSConfig of the client's options): %w", err)
	case errors.Is(err, context.DeadlineExceeded) && o.option.TLSConfig != nil:
		return fmt.Errorf("the server is silent, or does not speak TLS at this address (TLSConfig of the client's options): %w", err)
	}
	return explain(err)
}

// withoutCertificate reports whether TLS is used without a client certificate.
func withoutCertificate(c *tls.Config) bool {
	return c != nil && len(c.Certificates) == 0 && c.GetClientCertificate == nil
}

// start makes the engine.
func (o *Opened) start(client rueidis.Client, r adapter.Receiver) {
	engine, err := New(client, o.cfg)
	if err == nil {
		err = engine.Attach(r)
	}
	if err != nil { // this cannot happen: Open has checked the options
		client.Close()
		o.failed(err)
		return
	}
	o.mu.Lock()
	o.engine.Store(engine)
	o.why = nil
	complained := !o.logged.IsZero()
	o.mu.Unlock()
	close(o.connected)
	if complained {
		o.cfg.Logger.Info(o.cfg.Name+": connected", "addresses", o.option.InitAddress)
	}
}

// failed records why there is no connection, and logs it at most once a minute.
func (o *Opened) failed(err error) {
	if o.ctx.Err() != nil {
		return
	}
	o.mu.Lock()
	o.why = err
	silent := !o.logged.IsZero() && time.Since(o.logged) < complainEvery
	if !silent {
		o.logged = time.Now()
	}
	o.mu.Unlock()
	if !silent {
		o.cfg.Logger.Warn(o.cfg.Name+": cannot connect, trying again (said once a minute)", "error", err)
	}
}

// trouble returns why there is no connection.
func (o *Opened) trouble() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.why == nil {
		return errDialing
	}
	return o.why
}

// wait returns the engine once there is one. The error wraps that of ctx and
// the reason why there is no connection.
func (o *Opened) wait(ctx context.Context) (*Engine, error) {
	if e := o.engine.Load(); e != nil {
		return e, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	select {
	case <-o.connected:
		return o.engine.Load(), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w (last: %w)", context.Cause(ctx), o.trouble())
	case <-o.ctx.Done():
		return nil, o.errClosed()
	}
}

// waitUnsent is wait for calls that send something. It waits no longer than the
// ProbeTimeout, since the hub tries again.
func (o *Opened) waitUnsent(ctx context.Context) (*Engine, error) {
	if e := o.engine.Load(); e != nil {
		return e, nil
	}
	ctx, cancel := context.WithTimeout(ctx, o.cfg.ProbeTimeout)
	defer cancel()
	e, err := o.wait(ctx)
	if err != nil {
		err = adapter.Unsent(err)
	}
	return e, err
}

// Subscribe implements adapter.Adapter.
func (o *Opened) Subscribe(ctx context.Context, channel string) error {
	e, err := o.wait(ctx)
	if err != nil {
		return err
	}
	return e.Subscribe(ctx, channel)
}

// Unsubscribe implements adapter.Adapter.
func (o *Opened) Unsubscribe(ctx context.Context, channel string) error {
	if e := o.engine.Load(); e != nil {
		return e.Unsubscribe(ctx, channel)
	}
	return nil
}

// Publish implements adapter.Adapter.
func (o *Opened) Publish(ctx context.Context, channel string, frame []byte) (int, error) {
	e, err := o.waitUnsent(ctx)
	if err != nil {
		return 0, err
	}
	return e.Publish(ctx, channel, frame)
}

// PublishAsync implements adapter.AsyncPublisher.
func (o *Opened) PublishAsync(channel string, frame []byte, done adapter.Completion) bool {
	e := o.engine.Load()
	return e != nil && e.PublishAsync(channel, frame, done)
}

// Append implements adapter.Historian.
func (o *Opened) Append(ctx context.Context, channel string, r adapter.Record) (adapter.Position, int, error) {
	e, err := o.waitUnsent(ctx)
	if err != nil {
		return adapter.Position{}, 0, err
	}
	return e.Append(ctx, channel, r)
}

// History implements adapter.Historian.
func (o *Opened) History(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
	e, err := o.waitUnsent(ctx)
	if err != nil {
		return adapter.Page{}, err
	}
	return e.History(ctx, channel, q)
}

// Health implements adapter.HealthChecker.
func (o *Opened) Health() error {
	if e := o.engine.Load(); e != nil {
		return e.Health()
	}
	if o.ctx.Err() != nil {
		return o.errClosed()
	}
	return o.trouble()
}

// Close implements adapter.Adapter.
func (o *Opened) Close(ctx context.Context) error {
	o.mu.Lock()
	first := !o.closing
	o.closing = true
	attached := o.attached
	o.mu.Unlock()
	if first {
		if !attached {
			close(o.done) // connect was not started
		}
		go o.shutDown() // waited for below
	}
	select {
	case <-o.closed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: close: %w", o.cfg.Name, context.Cause(ctx))
	}
}

// shutDown does the work of Close.
func (o *Opened) shutDown() {
	defer close(o.closed)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if e := o.engine.Load(); e != nil {
		e.Close(ended) // this begins to close it, so that its calls end with ErrClosed and do not dial
	}
	o.cancel()
	if o.engine.Load() == nil {
		o.conns.close() // ends the handshake of a client that is being made
	}
	<-o.done
	if e := o.engine.Load(); e != nil {
		e.Close(context.Background())
		gone := make(chan struct{})
		go func() {
			e.client.Close()
			close(gone)
		}()
		grace := time.NewTimer(closeGrace)
		defer grace.Stop()
		select {
		case <-gone:
		case <-grace.C:
		}
		o.conns.close()
		<-gone
	}
	o.conns.close()
}
