package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
)

// keepTen gives every room a history of ten messages.
func keepTen(string) fanout.RoomOptions {
	return fanout.RoomOptions{Retain: fanout.Retention{Messages: 10}}
}

// A client that connects again, to any hub, gives the last position that it saw
// and gets what it missed.
func ExampleRoom_Resume() {
	ctx := context.Background()
	hub, err := fanout.New(memory.NewBus().NewAdapter(), &fanout.Options{Room: keepTen})
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Close(ctx)
	lobby := hub.Room("lobby")

	before, _ := hub.Connect(nil)
	if err := lobby.Join(ctx, before); err != nil {
		log.Fatal(err)
	}
	if err := lobby.Publish(ctx, []byte("one")); err != nil {
		log.Fatal(err)
	}
	msg, err := before.Receive(ctx)
	if err != nil {
		log.Fatal(err)
	}
	lastSeen := msg.Position.String() // the client keeps it
	before.Close()

	if err := lobby.Publish(ctx, []byte("two")); err != nil {
		log.Fatal(err)
	}
	since, err := fanout.ParsePosition(lastSeen)
	if err != nil {
		log.Fatal(err)
	}
	again, _ := hub.Connect(nil)
	if err := lobby.Resume(ctx, again, since); err != nil {
		log.Fatal(err)
	}
	if err := lobby.Publish(ctx, []byte("three")); err != nil {
		log.Fatal(err)
	}
	for range 2 {
		msg, err := again.Receive(ctx)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", msg.Data)
	}
	// Output:
	// two
	// three
}

// A room keeps as much as its Retention says. What has been trimmed since the
// position that is asked for is a GapError.
func ExampleRoom_History() {
	ctx := context.Background()
	hub, err := fanout.New(memory.NewBus().NewAdapter(), &fanout.Options{
		Room: func(name string) fanout.RoomOptions {
			return fanout.RoomOptions{Retain: fanout.Retention{Messages: 2}}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Close(ctx)
	lobby := hub.Room("lobby")
	if err := lobby.Publish(ctx, []byte("one")); err != nil {
		log.Fatal(err)
	}
	kept, err := lobby.History(ctx, fanout.Position{}, 0) // all that is kept
	if err != nil {
		log.Fatal(err)
	}
	for _, text := range []string{"two", "three", "four", "five"} {
		if err := lobby.Publish(ctx, []byte(text)); err != nil {
			log.Fatal(err)
		}
	}
	messages, err := lobby.History(ctx, kept[0].Position, 0)
	var gap *fanout.GapError
	if errors.As(err, &gap) {
		fmt.Println("trimmed:", gap.Missed)
	} else if err != nil {
		log.Fatal(err)
	}
	for _, msg := range messages {
		fmt.Printf("%s\n", msg.Data)
	}
	// Output:
	// trimmed: 2
	// four
	// five
}

// Rooms of one hub can differ in what they keep, and in how they treat members
// that lag.
func ExampleOptions_room() {
	ctx := context.Background()
	hub, err := fanout.New(nil, &fanout.Options{Room: func(name string) fanout.RoomOptions {
		if name == "positions" { // only the newest is of interest
			return fanout.RoomOptions{Window: fanout.Window{Messages: 1}, Overflow: fanout.Latest}
		}
		return fanout.RoomOptions{Retain: fanout.Retention{Messages: 100}}
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Close(ctx)
	member, _ := hub.Connect(nil)
	positions := hub.Room("positions")
	if err := positions.Join(ctx, member); err != nil {
		log.Fatal(err)
	}
	for n := range 3 {
		if err := positions.Publish(ctx, fmt.Append(nil, "x=", n)); err != nil {
			log.Fatal(err)
		}
	}
	_, err = member.Receive(ctx)
	fmt.Println(err)
	msg, _ := member.Receive(ctx)
	fmt.Printf("%s\n", msg.Data)
	// Output:
	// fanout: room "positions": missed 2 messages
	// x=2
}
