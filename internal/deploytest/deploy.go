// Package deploytest restarts hubs one after the other, as a rolling deploy
// does, and compares what their members receive with what was published. It is
// for tests of package adapter/migrate with several backends.
package deploytest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/migrate"
	"github.com/stretchr/testify/require"
)

// A Deploy restarts three hubs one after the other: from the old backend to
// both, and when they have flipped to the new one alone. Meanwhile each of them
// publishes to a room without a history and to one with a history.
type Deploy struct {
	T        testing.TB
	From, To func() adapter.Adapter // makes the adapter of a hub
	Options  migrate.Options        // their Prefix is that of the hubs
	Pause    func() time.Duration   // between two messages of a publisher
	Lossy    bool                   // links break: the room without a history has gaps
	// Unordered: the room without a history has only an order for each publisher.
	Unordered bool
	// Early returns how long after the flip the second deploy begins. It then
	// restarts all hubs at once, although histories may not have been copied.
	// Members may be told of gaps in the room with a history, and still miss
	// nothing without a gap. A message from before the flip may come again, at
	// another place.
	Early func() time.Duration

	mu      sync.Mutex
	sent    map[string][]message // by room, in the order in which Publish was called
	flipped int                  // of the kept ones, those that began before the flip
	members []*listener
}

// A message is a published message. Its times are numbers in the order of
// events.
type message struct {
	text       string
	began, end int // end is 0 until Publish has returned nil
}

// A process is a hub, with a publisher.
type process struct {
	hub       *fanout.Hub
	migrating *migrate.Adapter // nil: it is not
	stop      context.CancelFunc
	stopped   sync.WaitGroup
	listeners []*listener
}

// A listener is a member of one room.
type listener struct {
	room   string
	member *fanout.Member
	joined int // what began after it is to come
	mu     sync.Mutex
	got    []string
	gaps   []string
	after  map[int]bool // gaps came after so many messages
	at     fanout.Position
	done   chan struct{}
}

var rooms = []string{"plain", "kept"}

// longest is the longest time between two steps of a deploy. It is longer than
// hubs take to copy the histories of quiet rooms.
const longest = time.Minute

func (d *Deploy) hubOptions() *fanout.Options {
	return &fanout.Options{
		Prefix: d.Options.Prefix,
		Window: fanout.Window{Messages: 100_000},
		Room: func(name string) fanout.RoomOptions {
			if name == "kept" {
				return fanout.RoomOptions{Retain: fanout.Retention{Messages: 100_000, Age: 24 * time.Hour}}
			}
			return fanout.RoomOptions{}
		},
	}
}

// start starts a process, whose publisher is called name.
func (d *Deploy) start(name, kind string) *process {
	p := new(process)
	var a adapter.Adapter
	switch kind {
	case "old":
		a = d.From()
	case "new":
		a = d.To()
	default:
		m, err := migrate.New("test", d.From(), d.To(), &d.Options)
		require.NoError(d.T, err)
		p.migrating, a = m, m
	}
	hub, err := fanout.New(a, d.hubOptions())
	require.NoError(d.T, err)
	p.hub = hub
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	for _, room := range rooms {
		p.listeners = append(p.listeners, d.listen(hub, room, nil))
		p.stopped.Go(func() { d.publish(ctx, hub, room, name) })
	}
	return p
}

// listen makes a member join a room, or resume it.
func (d *Deploy) listen(hub *fanout.Hub, room string, since *fanout.Position) *listener {
	m, err := hub.Connect(nil)
	require.NoError(d.T, err)
	l := &listener{room: room, member: m, after: make(map[int]bool), done: make(chan struct{})}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if since != nil {
		l.at = *since
		require.NoError(d.T, hub.Room(room).Resume(ctx, m, *since))
	} else {
		require.NoError(d.T, hub.Room(room).Join(ctx, m))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	l.joined = len(d.sent[room])
	d.members = append(d.members, l)
	go l.run()
	return l
}

func (l *listener) run() {
	defer close(l.done)
	for {
		msg, err := l.member.Receive(context.Background())
		l.mu.Lock()
		if gap := new(fanout.GapError); errors.As(err, &gap) {
			l.gaps = append(l.gaps, fmt.Sprintf("after %d messages: %v", len(l.got), err))
			l.after[len(l.got)] = true
		} else if err == nil {
			l.got = append(l.got, string(msg.Data))
			l.at = msg.Position
		}
		l.mu.Unlock()
		if err != nil && !errors.As(err, new(*fanout.GapError)) {
			return
		}
	}
}

func (l *listener) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.got, text)
}

func (d *Deploy) publish(ctx context.Context, hub *fanout.Hub, room, name string) {
	for i := 0; ctx.Err() == nil; i++ {
		text := fmt.Sprintf("%s %d", name, i)
		d.mu.Lock()
		at := len(d.sent[room])
		d.sent[room] = append(d.sent[room], message{text: text, began: at})
		d.mu.Unlock()
		one, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		err := hub.Room(room).Publish(one, []byte(text))
		cancel()
		if err != nil {
			d.T.Errorf("%s: %v", text, err)
			return
		}
		d.mu.Lock()
		d.sent[room][at].end = len(d.sent[room])
		d.mu.Unlock()
		select {
		case <-time.After(d.Pause()):
		case <-ctx.Done():
		}
	}
}

// end ends a process as a deploy does: it publishes nothing more, and its
// members have received what was published before.
func (d *Deploy) end(p *process) {
	p.stop()
	p.stopped.Wait()
	for _, l := range p.listeners {
		d.drain(l)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	require.NoError(d.T, p.hub.Close(ctx))
	for _, l := range p.listeners {
		<-l.done
	}
}

// drain waits until a listener has received everything that was published
// before.
func (d *Deploy) drain(l *listener) {
	d.mu.Lock()
	sent := slices.Clone(d.sent[l.room])
	d.mu.Unlock()
	deadline := time.Now().Add(10 * time.Second)
	for _, m := range slices.Backward(sent) {
		if m.end == 0 || m.began < l.joined {
			continue
		}
		if d.Lossy && l.room == "plain" {
			return
		}
		for !l.has(m.text) && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		if !l.has(m.text) {
			d.T.Errorf("%s: %q did not come to a member that had joined before", l.room, m.text)
			return
		}
	}
}

// until waits for a condition.
func (d *Deploy) until(what string, cond func() bool) {
	for deadline := time.Now().Add(10 * time.Minute); !cond(); {
		if time.Now().After(deadline) {
			d.T.Fatalf("this did not happen: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Run makes the deploy.
func (d *Deploy) Run() {
	d.sent = make(map[string][]message)
	processes := make([]*process, 3)
	for i := range processes {
		processes[i] = d.start(fmt.Sprintf("old-%d", i), "old")
	}
	client := d.listen(processes[0].hub, "kept", nil) // it comes back to another hub each time
	clients := []*listener{client}
	for _, kind := range []string{"both", "new"} {
		for i := range processes {
			if d.Early == nil || kind != "new" {
				time.Sleep(min(d.Pause()*20, longest))
			}
			if i == 0 || d.Pause()%2 == 0 {
				_ = client.member.Close()
				<-client.done
				client = d.listen(processes[(i+1)%3].hub, "kept", &client.at)
				clients = append(clients, client)
			}
			d.end(processes[i])
			if client.member.Err() != nil {
				<-client.done
				client = d.listen(processes[(i+1)%3].hub, "kept", &client.at)
				clients = append(clients, client)
			}
			processes[i] = d.start(fmt.Sprintf("%s-%d", kind, i), kind)
		}
		if kind == "both" {
			d.until("all hubs have flipped", func() bool {
				return !slices.ContainsFunc(processes, func(p *process) bool { return p.migrating.Status().Phase != migrate.Flipped })
			})
			d.waitAfterFlip()
		}
	}
	time.Sleep(min(d.Pause()*50, longest))
	for _, p := range processes {
		p.stop()
		p.stopped.Wait()
	}
	d.drain(client)
	for _, p := range processes {
		d.end(p)
	}
	<-client.done
	d.check(clients)
}

func (d *Deploy) waitAfterFlip() {
	d.mu.Lock()
	d.flipped = len(d.sent["kept"])
	d.mu.Unlock()
	if d.Early != nil {
		time.Sleep(d.Early())
		return
	}
	time.Sleep(min(d.Pause()*50, longest))
}
