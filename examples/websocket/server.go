package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/fanoutgo/fanout"
)

// serve serves until ctx ends. Then it accepts no new clients, drains the hub,
// which ends the clients that are connected after they have received what was
// said, and closes the hub last, since they need it.
func serve(ctx context.Context, ln net.Listener) error {
	hub, err := fanout.New(nil, nil)
	if err != nil {
		return err
	}
	var clients sync.WaitGroup
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ws", func(w http.ResponseWriter, r *http.Request) {
		clients.Add(1) // Shutdown does not wait for WebSockets
		defer clients.Done()
		serveClient(hub, w, r)
	})
	web := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- web.Serve(ln) }()
	select {
	case err = <-served: // the listener has failed
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	draining, cancel := context.WithTimeout(closing, 10*time.Second) // or a client that reads nothing takes it all
	defer cancel()
	shut := make(chan error, 1)
	go func() { shut <- web.Shutdown(closing) }() // no new clients from now on
	drained := hub.Drain(draining)
	return errors.Join(err, drained, <-shut, wait(closing, &clients), hub.Close(closing))
}

func wait(ctx context.Context, clients *sync.WaitGroup) error {
	done := make(chan struct{})
	go func() { clients.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// statusKicked tells a client not to connect again by itself. It should after
// any other status.
const statusKicked websocket.StatusCode = 4001

// goodbye returns what a client is told whose member has ended with an error.
func goodbye(err error) (status websocket.StatusCode, reason string) {
	bye := new(fanout.ClosedError)
	switch {
	case errors.As(err, &bye) && bye.Draining:
		return websocket.StatusGoingAway, "the server is shutting down"
	case errors.As(err, &bye): // Selection.Close, by any process
		return statusKicked, bye.Reason
	case errors.Is(err, fanout.ErrSlow):
		return websocket.StatusTryAgainLater, "the connection is too slow for the room"
	}
	return websocket.StatusGoingAway, "that was all"
}
