package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
)

// Two hubs, as two processes would have them, and a room that spans both.
func Example() {
	ctx := context.Background()
	bus := memory.NewBus() // in production: package sharded, or adapter/redis
	seoul, err := fanout.New(bus.NewAdapter(), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer seoul.Close(ctx)
	busan, err := fanout.New(bus.NewAdapter(), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer busan.Close(ctx)

	member, err := busan.Connect(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer member.Close()
	if err := busan.Room("lobby").Join(ctx, member); err != nil {
		log.Fatal(err)
	}

	if err := seoul.Room("lobby").Publish(ctx, []byte("안녕하세요")); err != nil {
		log.Fatal(err)
	}
	msg, err := member.Receive(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s: %s\n", msg.Room, msg.Data)
	// Output: lobby: 안녕하세요
}

// A member that lags is told what it missed, and continues.
func ExampleGapError() {
	ctx := context.Background()
	hub, err := fanout.New(nil, &fanout.Options{Window: fanout.Window{Messages: 2}})
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Close(ctx)
	member, _ := hub.Connect(nil)
	if err := hub.Room("live").Join(ctx, member); err != nil {
		log.Fatal(err)
	}
	for n := range 5 {
		if err := hub.Room("live").Publish(ctx, fmt.Append(nil, "message ", n)); err != nil {
			log.Fatal(err)
		}
	}
	for range 3 {
		msg, err := member.Receive(ctx)
		var gap *fanout.GapError
		switch {
		case errors.As(err, &gap):
			fmt.Println("missed:", gap.Missed)
		case err != nil:
			log.Fatal(err)
		default:
			fmt.Printf("%s\n", msg.Data)
		}
	}
	// Output:
	// missed: 3
	// message 3
	// message 4
}

// A busy room is read in batches: here for one write to the network.
func ExampleMember_ReceiveBatch() {
	ctx := context.Background()
	hub, err := fanout.New(nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Close(ctx)
	member, _ := hub.Connect(nil)
	if err := hub.Room("live").Join(ctx, member); err != nil {
		log.Fatal(err)
	}
	for _, word := range []string{"one ", "write ", "for ", "all"} {
		if err := hub.Room("live").Publish(ctx, []byte(word)); err != nil {
			log.Fatal(err)
		}
	}
	batch := make([]fanout.Message, 64)
	n, err := member.ReceiveBatch(ctx, batch)
	if err != nil {
		log.Fatal(err)
	}
	var packet []byte
	for _, msg := range batch[:n] {
		packet = append(packet, msg.Data...)
	}
	fmt.Printf("%s\n", packet)
	// Output: one write for all
}

// A selection says whom a message is for.
func ExampleSelection() {
	ctx := context.Background()
	hub, err := fanout.New(nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Close(ctx)
	ann, _ := hub.Connect(nil)
	bob, _ := hub.Connect(nil)
	for _, m := range []*fanout.Member{ann, bob} {
		if err := hub.Room("lobby").Join(ctx, m); err != nil {
			log.Fatal(err)
		}
	}
	// Ann's message is for the others; the server's answer is for her.
	if err := hub.In("lobby").Except(ann.ID()).Publish(ctx, []byte("Ann: hi")); err != nil {
		log.Fatal(err)
	}
	if err := hub.To(ann.ID()).Publish(ctx, []byte("sent")); err != nil {
		log.Fatal(err)
	}
	forBob, _ := bob.Receive(ctx)
	forAnn, _ := ann.Receive(ctx)
	fmt.Printf("Bob gets %q, Ann gets %q\n", forBob.Data, forAnn.Data)
	// Output: Bob gets "Ann: hi", Ann gets "sent"
}

// A loop publishes many messages without waiting for each, and is told the
// outcome of each later.
func ExampleRoom_PublishAsync() {
	ctx := context.Background()
	hub, err := fanout.New(nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Close(ctx)
	member, err := hub.Connect(nil)
	if err != nil {
		log.Fatal(err)
	}
	score := hub.Room("score")
	if err := score.Join(ctx, member); err != nil {
		log.Fatal(err)
	}
	for n := range 3 {
		err := score.PublishAsync(ctx, fmt.Append(nil, n, " : 0"), func(err error) {
			if err != nil {
				log.Print("not published: ", err)
			}
		})
		if err != nil {
			log.Fatal(err) // it has not been sent
		}
	}
	for range 3 {
		msg, err := member.Receive(ctx)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(msg.Data))
	}
	// Output:
	// 0 : 0
	// 1 : 0
	// 2 : 0
}

// Messages is Receive as a loop. A GapError does not end it.
func ExampleMember_Messages() {
	ctx := context.Background()
	hub, err := fanout.New(nil, &fanout.Options{Window: fanout.Window{Messages: 2}})
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Close(ctx)
	member, _ := hub.Connect(nil)
	if err := hub.Room("live").Join(ctx, member); err != nil {
		log.Fatal(err)
	}
	for _, text := range []string{"one", "two", "three", "bye"} {
		if err := hub.Room("live").Publish(ctx, []byte(text)); err != nil {
			log.Fatal(err)
		}
	}
	for msg, err := range member.Messages(ctx) {
		var gap *fanout.GapError
		switch {
		case errors.As(err, &gap):
			fmt.Println("missed:", gap.Missed)
			continue
		case err != nil:
			log.Fatal(err) // it is the last
		}
		fmt.Printf("%s\n", msg.Data)
		if string(msg.Data) == "bye" {
			break
		}
	}
	// Output:
	// missed: 2
	// three
	// bye
}

// A message to members goes to the hubs that they are connected to.
func ExampleHub_To() {
	ctx := context.Background()
	bus := memory.NewBus()
	seoul, err := fanout.New(bus.NewAdapter(), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer seoul.Close(ctx)
	busan, err := fanout.New(bus.NewAdapter(), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer busan.Close(ctx)
	member, _ := busan.Connect(nil)
	if err := busan.Room("lobby").Join(ctx, member); err != nil { // from here on messages reach it
		log.Fatal(err)
	}
	if err := seoul.To(member.ID()).Publish(ctx, []byte("for you alone")); err != nil {
		log.Fatal(err)
	}
	msg, err := member.Receive(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("room %q: %s\n", msg.Room, msg.Data)
	// Output: room "": for you alone
}

// A message to everyone reaches all members, whatever rooms they are in.
func ExampleHub_Everyone() {
	ctx := context.Background()
	hub, err := fanout.New(nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Close(ctx)
	ann, _ := hub.Connect(nil)
	bob, _ := hub.Connect(nil)
	if err := hub.Everyone().Publish(ctx, []byte("restart at noon")); err != nil {
		log.Fatal(err)
	}
	for _, m := range []*fanout.Member{ann, bob} {
		msg, err := m.Receive(ctx)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", msg.Data)
	}
	// Output:
	// restart at noon
	// restart at noon
}

// Stats are for a dashboard: here is how many messages a hub has published and
// how many members it has.
func ExampleHub_Stats() {
	ctx := context.Background()
	hub, err := fanout.New(nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Close(ctx)
	member, _ := hub.Connect(nil)
	if err := hub.Room("lobby").Join(ctx, member); err != nil {
		log.Fatal(err)
	}
	if err := hub.Room("lobby").Publish(ctx, []byte("hello")); err != nil {
		log.Fatal(err)
	}
	stats := hub.Stats()
	fmt.Println("members:", stats.Members, "rooms:", stats.Rooms, "published:", stats.Published)
	// Output: members: 1 rooms: 1 published: 1
}

// Health is for a readiness probe.
func ExampleHub_Health() {
	ctx := context.Background()
	bus := memory.NewBus()
	hub, err := fanout.New(bus.NewAdapter(), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Close(ctx)
	fmt.Println("before:", hub.Health(ctx))
	bus.Cut()
	fmt.Println("cut off:", hub.Health(ctx) != nil)
	bus.Heal()
	fmt.Println("after:", hub.Health(ctx))
	// Output:
	// before: <nil>
	// cut off: true
	// after: <nil>
}

// An error says which room could not be published to, and whether it is safe to
// publish again.
func ExamplePublishError() {
	ctx := context.Background()
	hub, err := fanout.New(nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	hub.Close(ctx)
	err = hub.Room("lobby").Publish(ctx, []byte("hello"))
	fmt.Println(err)
	var failed *fanout.PublishError
	if errors.As(err, &failed) {
		fmt.Println("room:", failed.Room)
	}
	fmt.Println("safe to publish again:", errors.Is(err, fanout.ErrUnsent))
	// Output:
	// fanout: publish to room "lobby": closed (not sent)
	// room: lobby
	// safe to publish again: true
}

// A few workers serve all members, instead of a goroutine for each.
func ExampleMember_TryReceiveBatch() {
	ctx := context.Background()
	hub, _ := fanout.New(nil, nil)
	defer hub.Close(ctx)

	ready := make(chan *fanout.Member, 1000) // as long as there are members: OnReady must not block
	member, _ := hub.Connect(&fanout.MemberOptions{OnReady: func(m *fanout.Member) { ready <- m }})
	hub.Room("lobby").Join(ctx, member)
	hub.Room("lobby").Publish(ctx, []byte("hello"))

	m := <-ready // a worker does this in a loop
	buf := make([]fanout.Message, 64)
	for {
		n, err := m.TryReceiveBatch(buf)
		if gap := new(fanout.GapError); errors.As(err, &gap) {
			fmt.Println(gap.Missed, "messages are missing here")
			continue
		}
		if err != nil {
			break // the member has ended
		}
		if n == 0 {
			break // OnReady is called again when there is more
		}
		for _, msg := range buf[:n] {
			fmt.Printf("%s\n", msg.Data)
		}
	}
	// Output: hello
}

// Receiving in a select.
func ExampleMember_Ready() {
	ctx := context.Background()
	hub, _ := fanout.New(nil, nil)
	defer hub.Close(ctx)
	member, _ := hub.Connect(nil)
	hub.Room("lobby").Join(ctx, member)
	hub.Room("lobby").Publish(ctx, []byte("hello"))

	buf := make([]fanout.Message, 64)
	select {
	case <-member.Ready():
		for {
			n, err := member.TryReceiveBatch(buf)
			if gap := new(fanout.GapError); errors.As(err, &gap) {
				fmt.Println(gap.Missed, "messages are missing here")
				continue
			}
			if n == 0 || err != nil { // nothing more, or the member has ended
				break
			}
			for _, msg := range buf[:n] {
				fmt.Printf("%s\n", msg.Data)
			}
		}
	case <-time.After(time.Minute):
		fmt.Println("nothing was said")
	}
	// Output: hello
}

// Members receive what was published before the hub closes.
func ExampleHub_Drain() {
	ctx := context.Background()
	hub, _ := fanout.New(nil, nil)
	member, _ := hub.Connect(nil)
	hub.Room("lobby").Join(ctx, member)
	hub.Room("lobby").Publish(ctx, []byte("last words"))

	received := make(chan struct{})
	go func() {
		defer close(received)
		for msg, err := range member.Messages(ctx) {
			if bye := new(fanout.ClosedError); errors.As(err, &bye) {
				fmt.Println("connect again:", bye.Draining)
				return
			}
			fmt.Printf("%s\n", msg.Data)
		}
	}()
	closing, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := hub.Drain(closing); err != nil {
		fmt.Println(err) // some members did not read in time
	}
	<-received
	hub.Close(closing)
	// Output:
	// last words
	// connect again: true
}

// A user who was banned cannot join, however fast it tries.
func ExampleOptions_admit() {
	ctx := context.Background()
	var banned sync.Map // several processes need a list that all of them read
	hub, _ := fanout.New(nil, &fanout.Options{
		Admit: func(_ context.Context, room string, m *fanout.Member) error {
			if _, is := banned.Load(m.User()); is {
				return errors.New("you are banned")
			}
			return nil
		},
	})
	defer hub.Close(ctx)
	member, _ := hub.Connect(&fanout.MemberOptions{User: "mallory"})
	lobby := hub.Room("lobby")
	fmt.Println(lobby.Join(ctx, member))

	banned.Store("mallory", true)           // first the ban …
	hub.User("mallory").Leave(ctx, "lobby") // … then Leave, on all hubs
	fmt.Println(lobby.Join(ctx, member))
	// Output:
	// <nil>
	// fanout: join room "lobby": you are banned
}

// A message to all connections of a user.
func ExampleHub_User() {
	ctx := context.Background()
	hub, _ := fanout.New(nil, nil)
	defer hub.Close(ctx)
	phone, _ := hub.Connect(&fanout.MemberOptions{User: "ann"})
	laptop, _ := hub.Connect(&fanout.MemberOptions{User: "ann"})

	hub.User("ann").Publish(ctx, []byte("you have mail"))
	for _, member := range []*fanout.Member{phone, laptop} {
		msg, _ := member.Receive(ctx)
		fmt.Printf("%s\n", msg.Data)
	}
	// Output:
	// you have mail
	// you have mail
}
