package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/fanoutgo/fanout"
)

//go:embed page/index.html
var page embed.FS

const maxName = 64 // bytes

// timing has the time limits. Tests use shorter ones.
type timing struct {
	join   time.Duration // until the backend has confirmed a subscription
	health time.Duration // until the backend has returned a message of the hub's own
	write  time.Duration // until a page has read what is written to it; up to twice that
	ping   time.Duration // from one ping to the next
	pong   time.Duration // until a page has answered a ping, or sent the rest of a message
	grace  time.Duration // until a write has finished after its member has ended

	goodbye time.Duration // until a page has answered a close frame
}

// silence is how long a page may send nothing complete: no message, and no
// answer to a ping.
func (t *timing) silence() time.Duration { return t.ping + t.pong }

var patient = timing{
	join:   10 * time.Second,
	health: 2 * time.Second,
	write:  10 * time.Second,
	ping:   30 * time.Second,
	pong:   25 * time.Second,
	grace:  time.Second,

	goodbye: 5 * time.Second,
}

// limits bound what clients may do.
type limits struct {
	pages  int       // open sockets
	frames allowance // that a page sends, of every kind
	bytes  allowance // in these frames
}

// usual is far more than people need who type.
var usual = limits{
	pages:  10_000,
	frames: allowance{rate: 100, burst: 1000},
	bytes:  allowance{rate: 256 << 10, burst: 4 << 20},
}

// A server is the chat's web server: the page, the sockets, the health check.
type server struct {
	hub     *fanout.Hub
	log     *slog.Logger
	frames  *frames
	windows windows
	timing  timing
	limits  limits
	health  checkup
	kicks   chan struct{} // holds a value for each kick that is under way

	draining context.Context // ends with drain
	stop     context.CancelFunc

	mu      sync.Mutex // guards pages; begin must not run during drain
	pages   int        // sockets that are open
	sockets sync.WaitGroup
}

var shuttingDown = &refusal{http.StatusServiceUnavailable, "the server is shutting down"}

func newServer(hub *fanout.Hub, log *slog.Logger) *server {
	s := &server{
		hub: hub, log: log, frames: newFrames(), timing: patient, limits: usual, health: newCheckup(),
		kicks: make(chan struct{}, maxKicks),
	}
	s.draining, s.stop = context.WithCancel(context.Background())
	return s
}

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.servePage)
	mux.HandleFunc("GET /ws", s.serveSocket)
	mux.HandleFunc("POST /kick", s.serveKick)
	mux.HandleFunc("GET /healthz", s.serveHealth)
	return withoutBody(mux)
}

// withoutBody refuses requests with a body. No request needs one, and a body
// that is announced may never arrive, so the server does not wait for it.
func withoutBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 {
			next.ServeHTTP(w, r)
			return
		}
		_ = http.NewResponseController(w).SetReadDeadline(time.Now()) // fails if the connection is closed
		w.Header().Set("Connection", "close")
		http.Error(w, "requests have no body here", http.StatusRequestEntityTooLarge)
	})
}

// drain makes the server accept no more sockets, and ends the existing ones.
func (s *server) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop()
}

// wait waits, after drain, until all sockets have ended.
func (s *server) wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() { // ends with the last socket
		s.sockets.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// begin counts a socket, unless the server is draining or has too many.
func (s *server) begin() *refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.draining.Err() != nil:
		return shuttingDown
	case s.pages >= s.limits.pages:
		return &refusal{http.StatusServiceUnavailable, "the server has as many pages as it takes"}
	}
	s.pages++
	s.sockets.Add(1)
	return nil
}

// end undoes begin.
func (s *server) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pages--
	s.sockets.Done()
}

func (s *server) servePage(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	// The page loads nothing from other sites. If a text ever got into it as
	// more than text, it could not load anything either.
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "+
		"img-src data:; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	http.ServeFileFS(w, r, page, "page/index.html")
}

// serveHealth answers 200 only while messages travel through the backend, so
// that a load balancer stops using a process whose pages would receive nothing.
func (s *server) serveHealth(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if s.draining.Err() != nil {
		http.Error(w, "shutting down", http.StatusServiceUnavailable)
		return
	}
	err := s.health.result(r.Context(), func() error {
		ctx, cancel := context.WithTimeout(context.Background(), s.timing.health)
		defer cancel()
		return s.hub.Health(ctx)
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// A checkup makes one health check for all requests at about the same time,
// since a check costs a message.
type checkup struct {
	turn chan struct{} // holds a value while no check runs; guards all below
	at   time.Time
	err  error
}

// fresh is how old a result may be.
const fresh = time.Second

func newCheckup() checkup {
	turn := make(chan struct{}, 1)
	turn <- struct{}{}
	return checkup{turn: turn}
}

// result returns the result of check, or that of a moment ago.
func (c *checkup) result(ctx context.Context, check func() error) error {
	select {
	case <-c.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { c.turn <- struct{}{} }()
	if time.Since(c.at) > fresh {
		c.err = check()
		c.at = time.Now()
	}
	return c.err
}

// A visit is what the query of a page's request asks for.
type visit struct {
	room, name string
	since      *fanout.Position // the last position that the page has seen; nil if it does not ask for earlier messages
}

// visitOf reads the query. Its error is a sentence for the client.
func visitOf(r *http.Request) (visit, error) {
	q := r.URL.Query()
	v := visit{room: q.Get("room"), name: q.Get("name")}
	if v.room == "" {
		return v, fmt.Errorf("the room is missing: %s?room=…&name=…", r.URL.Path)
	}
	if err := wrongName("name", v.name); err != nil {
		return v, err
	}
	if q.Has("since") {
		since, err := fanout.ParsePosition(q.Get("since"))
		if err != nil {
			return v, fmt.Errorf("since: %w", err)
		}
		v.since = &since
	}
	return v, nil
}

// wrongName returns what is wrong with the name in a parameter, or nil.
func wrongName(parameter, name string) error {
	switch {
	case strings.TrimSpace(name) == "":
		return fmt.Errorf("the name is missing: %s=…", parameter)
	case len(name) > maxName:
		return fmt.Errorf("the name is %d bytes long, at most %d are allowed", len(name), maxName)
	case !utf8.ValidString(name):
		return errors.New("the name is not valid UTF-8")
	case strings.ContainsFunc(name, unicode.IsControl):
		return errors.New("the name contains a control character")
	}
	return nil
}
