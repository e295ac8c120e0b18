// Chat is a chat in the browser on top of fanout: one room is one log, each
// open page is one member. Start it and open http://localhost:8080:
//
//	go run -C examples/chat .
//
// Any number of processes form one chat if they share a Redis or a NATS:
//
//	go run -C examples/chat . -addr :8081 -adapter sharded -redis 127.0.0.1:6379
//	go run -C examples/chat . -addr :8081 -adapter nats -nats 127.0.0.1:4222
//
// With -history a page that joins, or comes back, gets the earlier messages.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/fanoutgo/fanout"
)

const (
	// drainTimeout bounds how long pages have after a signal to receive what
	// was said.
	drainTimeout = 3 * time.Second
	// goodbyeTimeout bounds how long pages have to leave after a signal, all in
	// all.
	goodbyeTimeout = 6 * time.Second
	// closeTimeout bounds how long the hub then has for its last publishes.
	closeTimeout = 4 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills the process
	code := run(ctx, os.Args[1:], os.Stderr)
	stop()
	os.Exit(code)
}

// run is main without the process: it serves until ctx ends and returns the
// exit code: 2 for wrong flags, 1 for another error.
func run(ctx context.Context, args []string, stderr io.Writer) int {
	c, err := parseFlags(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "chat: %v\n", err)
		return 2
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	if err := serve(ctx, c, log); err != nil {
		fmt.Fprintf(stderr, "chat: %v\n", err)
		return 1
	}
	return 0
}

// serve runs the chat until ctx ends, and then shuts it down in an order in
// which no message is lost: it accepts no new pages, drains the hub, so that
// pages receive what was said and then leave, closes the hub, and then its
// connection to the backend.
func serve(ctx context.Context, c config, log *slog.Logger) (err error) {
	ln, err := net.Listen("tcp", c.addr)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", c.addr, err)
	}
	defer ln.Close()
	adapter, disconnect, err := openBackend(ctx, c, log)
	if err != nil {
		return err
	}
	defer disconnect()
	hub, err := fanout.New(adapter, &fanout.Options{
		// A few hundred people who all send a message at once exceed the
		// default window of 256 messages before the last page has received the
		// first one.
		Window: fanout.Window{Messages: 4096, Bytes: 8 << 20},
		Room:   c.room(),
		Logger: log,
	})
	if err != nil {
		return err
	}
	chat := newServer(hub, log)
	chat.windows.length = c.gather
	chat.limits.pages = c.pages
	web := webServer(chat.routes(), log)
	// serving ends with ctx or when serving fails.
	serving, failed := context.WithCancelCause(ctx)
	var accepting sync.WaitGroup
	accepting.Go(func() { failed(web.Serve(ln)) })
	log.Info("listening", "addr", ln.Addr().String(), "adapter", c.adapter, "history", c.history, "hub", hub.ID())

	<-serving.Done()
	if ctx.Err() == nil {
		err = fmt.Errorf("serving: %w", context.Cause(serving))
	}
	log.Info("shutting down")
	shutDown(ctx, chat, web, &accepting)
	log.Info("stopped")
	return err
}

// shutDown ends a chat in order.
func shutDown(ctx context.Context, chat *server, web *http.Server, accepting *sync.WaitGroup) {
	log := chat.log
	goodbye, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeTimeout)
	defer cancel()
	var ending sync.WaitGroup
	ending.Go(func() { // no new pages from now on
		if err := web.Shutdown(goodbye); err != nil {
			log.Warn("requests did not end in time", "error", err)
		}
	})
	chat.windows.stop()
	draining, cancel := context.WithTimeout(goodbye, drainTimeout)
	defer cancel()
	if err := chat.hub.Drain(draining); err != nil {
		log.Warn("pages did not receive everything in time", "error", err)
	}
	chat.drain()
	ending.Wait()
	accepting.Wait()
	if err := chat.wait(goodbye); err != nil {
		log.Warn("pages did not leave in time", "error", err)
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if err := chat.hub.Close(closing); err != nil {
		log.Warn("the hub did not close in time", "error", err)
	}
}

// webServer returns a server in which every wait for a client is bounded, also
// if the client sends or reads a byte now and then. When a connection becomes a
// WebSocket its own deadlines take over.
func webServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       20 * time.Second, // of a request; longer than joining a room may take, since it would end that
		WriteTimeout:      30 * time.Second, // of a response, including what it waits for
		IdleTimeout:       2 * time.Minute,  // between requests
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}
