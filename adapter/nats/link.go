package nats

import (
	"context"
	"errors"
	"math/rand/v2"
	"regexp"
	"strings"
	"time"

	"github.com/fanoutgo/fanout/internal/backoff"
	"github.com/nats-io/nats.go"
)

// A link is what is known of the connection. Its fields are guarded by
// Adapter.mu.
type link struct {
	nc     *nats.Conn
	up     bool
	breaks uint64 // how often it has broken; the reader deals with each
	met    bool   // other hubs were asked who they are
	synced bool   // the subject that hubs talk on is subscribed
	err    error
	logged time.Time
	denied map[string]error // by "Publish subject" or "Subscription subject"
}

// clientOptions returns the options of the client. The adapter has to know of
// each break, so it sets the options about connections itself.
func (a *Adapter) clientOptions(url string) (nats.Options, error) {
	o := nats.GetDefaultOptions()
	for _, server := range strings.Split(url, ",") {
		if server = strings.TrimSpace(server); server != "" {
			o.Servers = append(o.Servers, server)
		}
	}
	for _, option := range a.o.Connect {
		if option == nil {
			continue
		}
		if err := option(&o); err != nil {
			return o, err
		}
	}
	o.AllowReconnect, o.MaxReconnect, o.RetryOnFailedConnect = true, -1, false
	o.IgnoreAuthErrorAbort = true
	o.ReconnectBufSize = -1 // what cannot be sent now is not sent later
	o.PingInterval, o.MaxPingsOut = a.o.PingInterval, 2
	o.FlusherTimeout = flushIn / 2 // no write takes longer
	o.NoEcho = false
	closeOnFailedWrite(&o)
	o.CustomReconnectDelayCB = func(attempts int) time.Duration {
		limit := min(backoff.First<<min(attempts, 10), backoff.Max)
		return limit/2 + rand.N(limit/2+1)
	}
	broken, connected, failed, closed := o.DisconnectedErrCB, o.ReconnectedCB, o.AsyncErrorCB, o.ClosedCB
	o.DisconnectedErrCB = func(nc *nats.Conn, err error) {
		a.broken(err)
		if broken != nil {
			broken(nc, err)
		}
	}
	o.ReconnectedCB = func(nc *nats.Conn) {
		a.connected(nc)
		if connected != nil {
			connected(nc)
		}
	}
	o.ReconnectErrCB = func(nc *nats.Conn, err error) { a.down(err) }
	o.AsyncErrorCB = func(nc *nats.Conn, s *nats.Subscription, err error) {
		a.failed(err)
		if failed != nil {
			failed(nc, s, err)
		}
	}
	o.ClosedCB = func(nc *nats.Conn) {
		a.lost(nc)
		if closed != nil {
			closed(nc)
		}
	}
	return o, nil
}

// connectFirst makes the first connection.
func (a *Adapter) connectFirst() {
	done := a.tryToConnect()
	close(a.tried)
	if !done && backoff.Sleep(a.life, backoff.First) {
		a.connect()
	}
}

// awaitTried waits until the first attempt to connect has come to an end, which
// is as long as the client's Timeout for each address. Before Attach there is
// none.
func (a *Adapter) awaitTried(ctx context.Context) error {
	a.mu.Lock()
	attached := a.receiver != nil
	a.mu.Unlock()
	if !attached {
		return nil
	}
	select {
	case <-a.tried:
		return nil
	default:
	}
	select {
	case <-a.tried:
	case <-a.life.Done():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// connect makes the connection, if it takes several attempts.
func (a *Adapter) connect() {
	var pause backoff.Backoff
	for a.life.Err() == nil && !a.tryToConnect() && pause.Wait(a.life) {
	}
}

// tryToConnect tries once to make the connection. It reports whether no other
// attempt is needed.
func (a *Adapter) tryToConnect() (done bool) {
	nc, err := a.opts.Connect()
	if err != nil {
		a.down(err)
		return false
	}
	a.mu.Lock()
	a.link.nc = nc
	closing := a.closing
	a.mu.Unlock()
	if closing {
		nc.Close()
		return true
	}
	a.connected(nc)
	return true
}

func (a *Adapter) connected(nc *nats.Conn) {
	a.mu.Lock()
	a.link.up, a.link.err, a.link.denied = true, nil, nil
	a.link.met = false
	a.tracker.Resume(time.Now())
	a.mu.Unlock()
	a.forgetStreams() // the server may be another one
	a.out.connect(nc)
	signal(a.changes)
	signal(a.work)
}

// broken is called by the client when the connection has broken.
func (a *Adapter) broken(err error) {
	if err == nil {
		err = errors.New("the connection was closed")
	}
	a.mu.Lock()
	a.link.up = false
	a.link.breaks++
	a.mu.Unlock()
	a.down(err)
	signal(a.changes)
}

// down notes why there is no connection, and logs it at most once a minute.
func (a *Adapter) down(err error) {
	a.mu.Lock()
	a.link.err = err
	closing, now := a.closing, time.Now()
	again := now.Sub(a.link.logged) < time.Minute
	if !closing && !again {
		a.link.logged = now
	}
	a.mu.Unlock()
	if !closing && !again {
		a.o.Logger.Warn("nats: not connected", "error", err)
	}
}

// lost is called when the client has given up a connection, as it does when a
// server speaks another protocol. It begins to make another one.
func (a *Adapter) lost(nc *nats.Conn) {
	a.mu.Lock()
	if a.closing || a.link.nc != nc {
		a.mu.Unlock()
		return
	}
	if a.link.up {
		a.link.up = false
		a.link.breaks++
	}
	a.link.nc, a.link.synced = nil, false
	for p := range a.partitions {
		a.partitions[p].sub = nil
	}
	a.tasks.Go(a.connect) // Close waits after it has set closing
	a.mu.Unlock()
	signal(a.changes)
}

var denial = regexp.MustCompile(`(?i)permissions violation for (publish|subscription) to "([^"]+)"`)

// denied returns what the server does not permit, as an error of the client
// says it.
func denied(err error) (key string, ok bool) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return "", false
	}
	m := denial.FindStringSubmatch(err.Error())
	if m == nil {
		return "", false
	}
	return strings.ToLower(m[1]) + " " + m[2], true
}

// failed is called by the client for errors that do not end the connection.
func (a *Adapter) failed(err error) {
	key, ok := denied(err)
	a.mu.Lock()
	switch {
	case ok:
		if a.link.denied == nil {
			a.link.denied = make(map[string]error)
		}
		a.link.denied[key] = err
	case errors.Is(err, nats.ErrSlowConsumer):
		// Messages were dropped on this side: as if the link had broken.
		a.link.breaks++
	}
	a.mu.Unlock()
	if ok {
		a.out.deny(key, err)
	} else {
		a.o.Logger.Warn("nats: error of the connection", "error", err)
	}
	signal(a.changes)
	signal(a.work)
}
