package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	liveRoom    = "모두의 방"
	liveMessage = 450 // bytes: a number of 9, and 147 Korean letters

	// livePatience bounds the wait for the last messages of a hearing.
	livePatience = 30 * time.Second
)

var liveLetters = strings.Repeat("가나다라마바사", 21)

// A dialect is the protocol of a program's clients, as far as programs differ.
// In all of them a frame contains the text of its message unchanged.
type dialect struct {
	// path returns the path to dial, for a person in a room.
	path func(room, name string) string
	// greet sends what must be sent before the first message; may be nil.
	greet func(*webSocket) error
	// say returns the frame that sends a text.
	say func(text string) string
	// message is the prefix of every frame that is a message of the room.
	message []byte
	// other handles all other frames. An error ends the run.
	other func(ws *webSocket, frame []byte) error
}

var chatDialect = dialect{
	path:    func(room, name string) string { return "/ws?" + query(room, name) },
	say:     func(text string) string { return text },
	message: []byte(`{"from":"`),
	other: func(_ *webSocket, frame []byte) error {
		if bytes.HasPrefix(frame, []byte(`{"people":`)) {
			return nil // who is here
		}
		return fmt.Errorf("instead of a message: %.200s", frame)
	},
}

// An audience is people in a room, each with a WebSocket. It must be cheap,
// since it shares the processors with the servers.
type audience struct {
	dialect dialect
	people  []*person
	next    int // the number of the next message

	hearing   atomic.Pointer[hearing]
	failed    chan error // capacity 1: the first error of a listener
	listening sync.WaitGroup
}

type person struct {
	audience *audience
	index    int
	ws       *webSocket
}

// bringIn connects people to the room, in turn through each process.
func bringIn(ctx context.Context, d dialect, processes []*process, people int) (*audience, error) {
	c := &audience{dialect: d, failed: make(chan error, 1)}
	for i := range people {
		ws, err := dialWebSocket(ctx, processes[i%len(processes)].addr, d.path(liveRoom, strconv.Itoa(i)))
		if err == nil {
			p := &person{audience: c, index: i, ws: ws}
			c.people = append(c.people, p)
			if d.greet != nil {
				err = d.greet(ws)
			}
		}
		if err != nil {
			c.goHome()
			return nil, fmt.Errorf("person %d: %w", i, err)
		}
	}
	for _, p := range c.people {
		c.listening.Go(p.listen)
	}
	return c, nil
}

// goHome closes all connections.
func (c *audience) goHome() {
	for _, p := range c.people {
		p.ws.Close()
	}
	c.listening.Wait()
}

// rehearse has all people send messages until all receive from all: a process
// that has just joined a room may not get the others' messages at first.
func (c *audience) rehearse(ctx context.Context) (err error) {
	for range 5 {
		h := c.burst()
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		err = c.await(ctx, h)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
	return err
}

// burst has all people send a message at the same moment.
func (c *audience) burst() *hearing {
	h := c.open(len(c.people), 0)
	for i, p := range c.people {
		p.say(h.first + i)
	}
	return h
}

// converse has people send n messages in turn, with a pause between two.
func (c *audience) converse(n int, pause time.Duration) *hearing {
	h := c.open(n, pause)
	for i := range n {
		time.Sleep(time.Until(h.saidAt(i)))
		c.people[i%len(c.people)].say(h.first + i)
	}
	return h
}

// open begins a hearing of n messages.
func (c *audience) open(n int, pause time.Duration) *hearing {
	h := &hearing{first: c.next, n: n, pause: pause, ears: make([]ear, len(c.people)), done: make(chan struct{})}
	for i := range h.ears {
		h.ears[i].heard = make([]bool, n)
	}
	h.missing.Store(int64(len(c.people)))
	c.next += n
	h.began = time.Now()
	c.hearing.Store(h)
	return h
}

// await waits until all people have received all messages.
func (c *audience) await(ctx context.Context, h *hearing) error {
	timeout := time.NewTimer(livePatience)
	defer timeout.Stop()
	select {
	case <-h.done:
		return nil
	case err := <-c.failed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-timeout.C:
		return fmt.Errorf("after %v %d of %d people have not heard all of %d messages", livePatience, h.missing.Load(), len(h.ears), h.n)
	}
}

// say sends the message with a number. An error shows as a missing message.
func (p *person) say(number int) {
	p.ws.write(opText, p.audience.dialect.say(fmt.Sprintf("#%08d%s", number, liveLetters)))
}

// listen receives messages until the connection ends.
func (p *person) listen() {
	for {
		frame, err := p.ws.next()
		if err == nil {
			err = p.hear(frame)
		}
		if err != nil {
			select {
			case p.audience.failed <- fmt.Errorf("person %d: %w", p.index, err):
			default: // another one was first, or the connections are closed
			}
			return
		}
	}
}

func (p *person) hear(frame []byte) error {
	d := &p.audience.dialect
	if !bytes.HasPrefix(frame, d.message) {
		return d.other(p.ws, frame)
	}
	// The number has the first such sign: names and what stands around have
	// none.
	at := bytes.IndexByte(frame, '#')
	if at < 0 || len(frame) < at+9 {
		return fmt.Errorf("a message without a number: %.200s", frame)
	}
	number := 0
	for _, digit := range frame[at+1 : at+9] {
		number = 10*number + int(digit-'0')
	}
	h := p.audience.hearing.Load()
	return h.heard(&h.ears[p.index], number)
}

// A hearing is some messages, and which people have received which of them.
// Those of an earlier hearing, which was given up, do not count.
type hearing struct {
	first, n int // numbers of the messages
	began    time.Time
	pause    time.Duration // from one message to the next; 0: all are said at once
	ears     []ear         // one for each person; only that person uses it until the hearing is over

	missing atomic.Int64 // people who have not received all messages
	ended   time.Time
	done    chan struct{}
}

type ear struct {
	heard  []bool
	count  int
	delays []time.Duration
}

// saidAt is when a message is said, or ought to be: what a busy machine makes
// late is late.
func (h *hearing) saidAt(i int) time.Time { return h.began.Add(time.Duration(i) * h.pause) }

func (h *hearing) heard(e *ear, number int) error {
	i := number - h.first
	if i < 0 {
		return nil
	}
	if i >= h.n || e.heard[i] {
		return fmt.Errorf("message %d was never said, or comes twice", number)
	}
	e.heard[i] = true
	if h.pause > 0 { // delays are not measured in a burst
		e.delays = append(e.delays, time.Since(h.saidAt(i)))
	}
	if e.count++; e.count == h.n && h.missing.Add(-1) == 0 {
		h.ended = time.Now()
		close(h.done)
	}
	return nil
}

func (h *hearing) deliveries() int { return h.n * len(h.ears) }

// delays returns how long messages took to reach people, in ascending order,
// unless all were sent at once. The hearing must be over.
func (h *hearing) delays() (all []time.Duration) {
	for i := range h.ears {
		all = append(all, h.ears[i].delays...)
	}
	slices.Sort(all)
	return all
}
