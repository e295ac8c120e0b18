// Hello has one room in one process, and one member that receives a message.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/fanoutgo/fanout"
)

func main() {
	ctx := context.Background()
	hub, err := fanout.New(nil, nil) // without an adapter: the rooms are this hub's alone
	check(err)
	member, err := hub.Connect(nil)
	check(err)
	check(hub.Room("lobby").Join(ctx, member))
	check(hub.Room("lobby").Publish(ctx, []byte("hello")))
	msg, err := member.Receive(ctx)
	check(err)
	fmt.Printf("%s: %s\n", msg.Room, msg.Data)
	check(hub.Close(ctx))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
