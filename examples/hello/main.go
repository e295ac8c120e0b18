// Hello has one room in one process, and one member that receives a message.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/fanoutgo/fanout"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	hub, err := fanout.New(nil, nil) // without an adapter the rooms live in this process
	if err != nil {
		return err
	}
	defer hub.Close(ctx)
	member, err := hub.Connect(nil)
	if err != nil {
		return err
	}
	lobby := hub.Room("lobby")
	if err := lobby.Join(ctx, member); err != nil {
		return err
	}
	if err := lobby.Publish(ctx, []byte("hello")); err != nil {
		return err
	}
	msg, err := member.Receive(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("%s: %s\n", msg.Room, msg.Data)
	return nil
}
