package memory_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
)

// A test of what an application does when a hub is cut off.
func ExampleAdapter_Cut() {
	ctx := context.Background()
	bus := memory.NewBus()
	link := bus.NewAdapter()
	cutOff, err := fanout.New(link, nil)
	if err != nil {
		panic(err)
	}
	defer cutOff.Close(ctx)
	other, err := fanout.New(bus.NewAdapter(), nil)
	if err != nil {
		panic(err)
	}
	defer other.Close(ctx)

	member, _ := cutOff.Connect(nil)
	if err := cutOff.Room("lobby").Join(ctx, member); err != nil {
		panic(err)
	}
	if err := other.Room("lobby").Publish(ctx, []byte("before")); err != nil {
		panic(err)
	}
	link.Cut()
	if err := other.Room("lobby").Publish(ctx, []byte("lost")); err != nil {
		panic(err)
	}
	link.Heal()
	if err := other.Room("lobby").Publish(ctx, []byte("after")); err != nil {
		panic(err)
	}
	missed := 0
	for msg, err := range member.Messages(ctx) {
		var gap *fanout.GapError
		switch {
		case errors.As(err, &gap):
			missed += gap.Missed
			continue
		case err != nil:
			panic(err)
		}
		fmt.Printf("%s, missed so far: %d\n", msg.Data, missed)
		if string(msg.Data) == "after" {
			break
		}
	}
	// Output:
	// before, missed so far: 0
	// after, missed so far: 1
}

// DropNext loses frames, of which the publisher's numbers then tell.
func ExampleBus_DropNext() {
	ctx := context.Background()
	bus := memory.NewBus()
	hub, err := fanout.New(bus.NewAdapter(), nil)
	if err != nil {
		panic(err)
	}
	defer hub.Close(ctx)
	member, _ := hub.Connect(nil)
	lobby := hub.Room("lobby")
	if err := lobby.Join(ctx, member); err != nil {
		panic(err)
	}
	for n := range 3 {
		if n == 1 {
			bus.DropNext(1)
		}
		if err := lobby.Publish(ctx, fmt.Append(nil, n)); err != nil {
			panic(err)
		}
	}
	for range 3 {
		msg, err := member.Receive(ctx)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Printf("%s\n", msg.Data)
	}
	// Output:
	// 0
	// fanout: room "lobby": missed 1 message
	// 2
}
