// Websocket is a room over WebSockets, in one file. Each client joins the room
// that its address names. What a client sends goes to all clients in the room:
//
//	go run ./examples/websocket
//	websocat 'ws://localhost:8080/ws?room=lobby'
//
// For several processes give fanout.New an adapter: package sharded or
// adapter/redis.
package main

import (
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/fanoutgo/fanout"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ln, err := net.Listen("tcp", "localhost:8080")
	if err != nil {
		log.Fatal(err)
	}
	if err := serve(ctx, ln); err != nil {
		log.Fatal(err)
	}
}

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

// serveClient joins the client to its room, and returns when the client leaves
// or the hub drains.
func serveClient(hub *fanout.Hub, w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered
	}
	defer ws.CloseNow()
	member, err := hub.Connect(nil)
	if err != nil {
		return
	}
	defer member.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	room := hub.Room(r.URL.Query().Get("room"))
	if err := room.Join(ctx, member); err != nil {
		ws.Close(websocket.StatusPolicyViolation, "the room cannot be joined")
		return
	}
	var writing sync.WaitGroup
	writing.Go(func() {
		writeMessages(ctx, ws, member)
		ws.Close(goodbye(member.Err())) // ends Read
	})
	defer writing.Wait()
	defer cancel()
	for {
		_, data, err := ws.Read(context.Background())
		if err != nil {
			return
		}
		if err := room.Publish(ctx, data); err != nil {
			log.Print(err)
			return
		}
	}
}

// writeMessages writes what the member receives until the member or the client
// ends.
func writeMessages(ctx context.Context, ws *websocket.Conn, member *fanout.Member) {
	for {
		msg, err := member.Receive(ctx)
		if gap := new(fanout.GapError); errors.As(err, &gap) {
			msg.Data = []byte("[messages are missing here]") // gap says how many
		} else if err != nil {
			return
		} else if msg.Room == "" {
			continue // for the server's own code, such as a question
		}
		writing, cancel := context.WithTimeout(ctx, 10*time.Second)
		err = ws.Write(writing, websocket.MessageText, msg.Data)
		cancel()
		if err != nil {
			return
		}
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
