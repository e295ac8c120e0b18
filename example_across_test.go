package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/fanoutgo/fanout"
)

// Who is in a room, on all hubs.
func ExampleSelection_Members() {
	ctx := context.Background()
	hub, err := fanout.New(nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Close(ctx)
	m, err := hub.Connect(&fanout.MemberOptions{User: "ann", Info: []byte("on her phone")})
	if err != nil {
		log.Fatal(err)
	}
	if err := hub.Room("lobby").Join(ctx, m); err != nil {
		log.Fatal(err)
	}

	n, err := hub.In("lobby").Count(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(n)
	for m, err := range hub.In("lobby").Members(ctx) {
		var partial *fanout.PartialError
		switch {
		case errors.As(err, &partial):
			fmt.Println("some hubs did not answer:", partial.Silent)
		case err != nil:
			log.Fatal(err)
		default:
			fmt.Println(m.User, string(m.Info))
		}
	}
	// Output:
	// 1
	// ann on her phone
}

// A task of the server is a member of an ordinary room. Other hubs ask it
// there.
func ExampleSelection_Ask() {
	ctx := context.Background()
	hub, err := fanout.New(nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Close(ctx)
	task, err := hub.Connect(nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := hub.Room("prices").Join(ctx, task); err != nil {
		log.Fatal(err)
	}
	go func() {
		for msg, err := range task.Messages(ctx) {
			if err != nil {
				return
			}
			if task.IsQuestion(msg) {
				_ = task.Reply(ctx, msg, []byte(string(msg.Data)+" costs 7"))
			}
		}
	}()

	for r, err := range hub.In("prices").Ask(ctx, []byte("tea")) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(r.Data))
	}
	// Output: tea costs 7
}

// All connections of a user are closed, on all hubs, with a reason.
func ExampleSelection_Close() {
	ctx := context.Background()
	hub, err := fanout.New(nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Close(ctx)
	m, err := hub.Connect(&fanout.MemberOptions{User: "ann"})
	if err != nil {
		log.Fatal(err)
	}
	if err := hub.User("ann").Close(ctx, "logged out elsewhere"); err != nil {
		log.Fatal(err)
	}
	_, err = m.Receive(ctx)
	var closed *fanout.ClosedError
	if errors.As(err, &closed) {
		fmt.Println(closed.Reason)
		fmt.Println("connect again:", closed.Draining)
	}
	// Output:
	// logged out elsewhere
	// connect again: false
}

// A member of a room with presence keeps a list of who is there.
func ExampleMessage_Presence() {
	ctx := context.Background()
	hub, err := fanout.New(nil, &fanout.Options{
		Room: func(string) fanout.RoomOptions { return fanout.RoomOptions{Presence: true} },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Close(ctx)
	enter := func(user string) *fanout.Member {
		m, err := hub.Connect(&fanout.MemberOptions{User: user})
		if err != nil {
			log.Fatal(err)
		}
		if err := hub.Room("lobby").Join(ctx, m); err != nil {
			log.Fatal(err)
		}
		return m
	}
	ann := enter("ann")
	enter("bob")

	here := make(map[string]bool)
	for msg, err := range ann.Messages(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		change, ok := msg.Presence()
		if !ok {
			continue // an ordinary message
		}
		if change.Reset { // Joined is the whole list
			clear(here)
		}
		for _, p := range change.Joined {
			here[p.User] = true
		}
		for _, p := range change.Left {
			delete(here, p.User)
		}
		if here["ann"] && here["bob"] {
			break
		}
	}
	fmt.Println(len(here), "are here")
	// Output: 2 are here
}
