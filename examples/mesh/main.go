// Command mesh is a chat among processes without a broker: each embeds a NATS
// server of its own, and the servers form a mesh. See README.md.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/nats"
	"github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"
)

func main() {
	var o options
	flag.StringVar(&o.name, "name", "", "who you are; each process has a name of its own")
	flag.StringVar(&o.listen, "listen", "127.0.0.1:6222", "where other processes reach this one")
	flag.StringVar(&o.join, "join", "", "where one or more of the others listen, separated by commas")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o, os.Stdin, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

type options struct{ name, listen, join string }

// run chats until in or ctx ends.
func run(ctx context.Context, o options, in io.Reader, out io.Writer) (err error) {
	if o.name == "" {
		return errors.New("mesh: -name is missing")
	}
	embedded, err := startServer(o)
	if err != nil {
		return err
	}
	defer embedded.WaitForShutdown()
	defer embedded.Shutdown()

	// The hub talks to its own server in memory.
	adapter, err := nats.New("", &nats.Options{Connect: []client.Option{client.InProcessServer(embedded)}})
	if err != nil {
		return err
	}
	hub, err := fanout.New(adapter, nil)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err = errors.Join(err, hub.Close(closing))
	}()
	member, err := hub.Connect(nil)
	if err != nil {
		return err
	}
	room := hub.Room("lobby")
	if err := room.Join(ctx, member); err != nil {
		return err
	}
	receiving := make(chan struct{})
	go func() {
		defer close(receiving)
		receive(member, out)
	}()
	defer func() {
		member.Close()
		<-receiving
	}()
	return speak(ctx, room, o.name, in)
}

// startServer starts the NATS server of this process. Knowing one of the others
// is enough: they tell each other of all.
func startServer(o options) (*server.Server, error) {
	listen, err := url.Parse("nats://" + o.listen)
	if err != nil {
		return nil, err
	}
	config := &server.Options{ServerName: o.name, NoLog: true, NoSigs: true}
	// A server of a mesh must have a port for clients. No client uses this one.
	config.Host, config.Port, config.Cluster.NoAdvertise = "127.0.0.1", server.RANDOM_PORT, true
	config.Cluster.Name = "mesh"
	config.Cluster.Host = listen.Hostname()
	if _, err := fmt.Sscan(listen.Port(), &config.Cluster.Port); err != nil {
		return nil, fmt.Errorf("mesh: -listen %q has no port", o.listen)
	}
	for _, other := range strings.Split(o.join, ",") {
		if other = strings.TrimSpace(other); other != "" {
			config.Routes = append(config.Routes, &url.URL{Scheme: "nats", Host: other})
		}
	}
	embedded, err := server.NewServer(config)
	if err != nil {
		return nil, err
	}
	embedded.Start()
	if !embedded.ReadyForConnections(10 * time.Second) {
		embedded.Shutdown()
		return nil, fmt.Errorf("mesh: the server cannot listen on %s", o.listen)
	}
	return embedded, nil
}

// receive prints what is said, until the member is closed.
func receive(member *fanout.Member, out io.Writer) {
	for msg, err := range member.Messages(context.Background()) {
		var gap *fanout.GapError
		switch {
		case errors.As(err, &gap):
			fmt.Fprintln(out, "(something may be missing here)")
		case err != nil:
			return
		default:
			fmt.Fprintf(out, "%s\n", msg.Data)
		}
	}
}

// speak publishes each line.
func speak(ctx context.Context, room *fanout.Room, name string, in io.Reader) error {
	lines := make(chan string)
	go func() { // it may run until the process ends, since reading from a terminal cannot be interrupted
		defer close(lines)
		for s := bufio.NewScanner(in); s.Scan(); {
			select {
			case lines <- s.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case line, ok := <-lines:
			if !ok {
				return nil
			}
			if err := room.Publish(ctx, []byte(name+": "+line)); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}
