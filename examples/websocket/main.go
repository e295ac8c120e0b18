// Websocket is a chat server over WebSockets. Each client joins the room that
// its address names. What a client sends goes to all clients in the room:
//
//	go run ./examples/websocket
//	websocat 'ws://localhost:8080/ws?room=lobby'
//
// This file serves a client. In server.go are the server, the order in which it
// stops, and what clients are told then. For several processes give fanout.New
// an adapter there: package sharded or adapter/redis.
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
	if err == nil {
		err = serve(ctx, ln)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// serveClient joins the client to its room, and returns when the client leaves
// or its member ends.
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
