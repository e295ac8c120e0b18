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

// timing is how long things may take. Tests are less patient.
type timing struct {
	join   time.Duration // the backend, to confirm that somebody is in the room
	health time.Duration // the backend, to bring back a message of the hub's own
	write  time.Duration // a page, to take what is written to it; up to twice that
	ping   time.Duration // from one ping to the next
	pong   time.Duration // a page, to answer a ping
	grace  time.Duration // a write, to finish when its member has ended
}

var patient = timing{
	join:   10 * time.Second,
	health: 2 * time.Second,
	write:  10 * time.Second,
	ping:   30 * time.Second,
	// Who publishes while Redis is away is not read from, for as long as
	// fanout.Options.PublishTimeout (10 s); its pong waits behind that.
	pong:  25 * time.Second,
	grace: time.Second,
}

// A server is the chat's web server: the page, the sockets, the health.
type server struct {
	hub     *fanout.Hub
	log     *slog.Logger
	frames  *frames
	windows windows
	timing  timing

	draining context.Context // ends with drain
	stop     context.CancelFunc

	mu      sync.Mutex // makes drain and begin exclude each other
	sockets sync.WaitGroup
}

func newServer(hub *fanout.Hub, log *slog.Logger) *server {
	s := &server{hub: hub, log: log, frames: newFrames(), timing: patient}
	s.draining, s.stop = context.WithCancel(context.Background())
	return s
}

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.servePage)
	mux.HandleFunc("GET /ws", s.serveSocket)
	mux.HandleFunc("GET /healthz", s.serveHealth)
	return mux
}

// drain makes the server take no more sockets, and end those that are there.
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

// begin counts a socket, unless the server is draining.
func (s *server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining.Err() != nil {
		return false
	}
	s.sockets.Add(1)
	return true
}

func (s *server) servePage(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	// The page needs nothing from anywhere. Should a text ever get into it as
	// more than text, it could not load anything either.
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "+
		"img-src data:; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	http.ServeFileFS(w, r, page, "page/index.html")
}

// serveHealth says 200 only while the way through the backend works, so that a
// load balancer takes a process out whose pages would hear nothing.
func (s *server) serveHealth(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if s.draining.Err() != nil {
		http.Error(w, "shutting down", http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.timing.health)
	defer cancel()
	if err := s.hub.Health(ctx); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// A visit is what a page asks for in the query of its address.
type visit struct {
	room, name string
	since      *fanout.Position // the last that it has seen; nil if it does not ask for what was said before
}

// visitOf reads the query. Its error is a sentence for the client.
func visitOf(r *http.Request) (visit, error) {
	q := r.URL.Query()
	v := visit{room: q.Get("room"), name: q.Get("name")}
	switch name := v.name; {
	case v.room == "":
		return v, errors.New("the room is missing: /ws?room=…&name=…")
	case strings.TrimSpace(name) == "":
		return v, errors.New("the name is missing: /ws?room=…&name=…")
	case len(name) > maxName:
		return v, fmt.Errorf("the name is %d bytes long, at most %d are allowed", len(name), maxName)
	case !utf8.ValidString(name):
		return v, errors.New("the name is not valid UTF-8")
	case strings.ContainsFunc(name, unicode.IsControl):
		return v, errors.New("the name contains a control character")
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
