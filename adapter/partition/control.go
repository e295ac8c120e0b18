package partition

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/adapter/partition/internal/rollout"
	"github.com/fanoutgo/fanout/internal/backoff"
)

// A control talks to the other hubs' adapters about which partitions are
// current. One goroutine, run, drives the machine; everything else gives it
// events.
type control struct {
	owner    *Adapter
	all, own string // the channels to all adapters, and to this one
	machine  *rollout.Machine
	change   change

	mu     sync.Mutex // guards all below
	events []func(now time.Time)
	wake   chan struct{}
	waits  string // what a change waits for
}

const (
	// maxEvents bounds the events that wait for run. Beyond that, messages of
	// other adapters are dropped, and asked for again later.
	maxEvents = 8192
	// startPatience takes the place of Options.Patience in an adapter that starts.
	startPatience = 500 * time.Millisecond
	// speechTimeout bounds how long a partition may take for one message.
	speechTimeout = 2 * time.Second
)

// A message is what adapters tell each other.
type message struct {
	Kind  string        `json:"kind"`            // ask, answer, tell or bye
	Round uint64        `json:"round,omitempty"` // of the adapter that asked
	State rollout.State `json:"state"`
}

// An utterance is a message on its way.
type utterance struct {
	channel string
	message message
}

func (c *control) init(a *Adapter, names []string) {
	id := fmt.Sprintf("%016x", a.id)
	c.owner, c.wake = a, make(chan struct{}, 1)
	c.all = a.opts.Prefix + ":p:{partitions}"
	c.own = a.opts.Prefix + ":p:{" + id + "}"
	c.machine = rollout.New(id, names, a.opts.Patience, min(startPatience, a.opts.Patience))
	c.change.init(a, c)
	c.waits = c.machine.Waiting()
}

func (c *control) is(channel string) bool { return channel == c.all || channel == c.own }

// waiting says what the adapter waits for. It is empty if it waits for nothing.
func (c *control) waiting() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waits
}

// add gives run an event.
func (c *control) add(event func(now time.Time)) {
	c.mu.Lock()
	c.events = append(c.events, event)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// full reports whether messages are to be dropped.
func (c *control) full() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.events) >= maxEvents
}

// kick makes the adapter ask the others how far they are.
func (c *control) kick() { c.add(func(time.Time) { c.machine.Check() }) }

// join makes a partition one on which adapters talk.
func (c *control) join(p *part) {
	a := c.owner
	a.goIfOpen(func() { c.listen(p) })
	a.goIfOpen(func() { c.speak(p) })
}

// listen subscribes to the channels of adapters, however long it takes.
func (c *control) listen(p *part) {
	var wait backoff.Backoff
	for _, channel := range []string{c.own, c.all} {
		for p.adapter.Subscribe(p.ctx, channel) != nil {
			if !wait.Wait(p.ctx) {
				return
			}
		}
	}
	p.mu.Lock()
	p.listens = true
	p.mu.Unlock()
	c.kick()
}

// notice takes what a partition says about the channels of adapters.
func (c *control) notice(p *part, channel string, s status) {
	if channel != c.all {
		return
	}
	p.mu.Lock()
	p.deaf = s != sound
	p.mu.Unlock()
	if s != sound {
		c.owner.checkDeaf()
		return
	}
	c.kick() // something may have been missed
}

// checkDeaf holds publishes if no other hub can reach this one: the others may
// take it for gone, and change partitions without it.
func (a *Adapter) checkDeaf() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.deaf == nil && !a.hears() {
		a.deaf = make(chan struct{})
	}
}

// hears reports whether another hub can reach this one. The caller holds mu.
func (a *Adapter) hears() bool {
	for _, p := range a.parts {
		if p.hears() {
			return true
		}
	}
	return false
}

// checked ends the time in which publishes are held because the hub was deaf.
// It is called when the others have been asked.
func (a *Adapter) checked() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.deaf != nil && a.hears() {
		close(a.deaf)
		a.deaf = nil
	}
}

// speak publishes this adapter's messages on a partition.
func (c *control) speak(p *part) {
	defer close(p.silent)
	for {
		var u utterance
		select {
		case u = <-p.speech:
		case <-p.ctx.Done():
			return
		}
		data, err := json.Marshal(u.message)
		receivers := 0
		if err == nil {
			ctx, cancel := context.WithTimeout(p.ctx, speechTimeout)
			receivers, err = p.adapter.Publish(ctx, u.channel, data)
			cancel()
		}
		if u.message.Kind != "ask" {
			continue
		}
		c.add(func(now time.Time) {
			if err != nil {
				c.machine.AskFailed(u.message.Round, p.name, now)
			} else {
				c.machine.Asked(u.message.Round, p.name, receivers)
			}
		})
	}
}

// say queues a message to be published on a partition. It reports false if the
// partition is not ready for it.
func (p *part) say(channel string, m message) bool {
	if !p.hears() { // Health is not asked: it may be about something else
		return false
	}
	select {
	case p.speech <- utterance{channel, m}:
		return true
	default:
		return false
	}
}

// receive takes a message from a partition's reader.
func (c *control) receive(p *part, data []byte) {
	if c.full() {
		return
	}
	c.add(func(now time.Time) {
		var m message
		if json.Unmarshal(data, &m) != nil || m.State.Hub == "" {
			return
		}
		self := c.machine.State()
		switch {
		case m.Kind == "ask" && m.State.Hub == self.Hub, m.Kind == "answer":
			c.machine.Answer(m.Round, p.name, m.State, now)
		case m.Kind == "ask":
			c.machine.Hear(m.State, now)
			to := c.owner.opts.Prefix + ":p:{" + m.State.Hub + "}"
			p.say(to, message{Kind: "answer", Round: m.Round, State: self})
		case m.Kind == "tell":
			c.machine.Hear(m.State, now)
		case m.Kind == "bye":
			c.machine.Leave(m.State.Hub)
		}
	})
}

// run drives the machine until the adapter is closed.
func (c *control) run() {
	defer c.change.stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-c.wake:
		case <-timer.C:
		case <-c.owner.ctx.Done():
			return
		}
		c.mu.Lock()
		events := c.events
		c.events = nil
		c.mu.Unlock()
		for _, event := range events {
			event(time.Now())
		}
		for {
			action := c.machine.Decide(time.Now())
			if action == rollout.None {
				break
			}
			c.noteWaiting() // first: when Change returns, Health knows it
			c.change.apply(action)
		}
		if !c.machine.Checking() {
			c.owner.checked()
		}
		due, wait := c.machine.Due(time.Now())
		if due {
			c.ask()
			_, wait = c.machine.Due(time.Now())
		}
		if wait <= 0 {
			wait = time.Hour
		}
		timer.Reset(wait)
		c.noteWaiting()
	}
}

// noteWaiting notes what the adapter waits for.
func (c *control) noteWaiting() {
	c.mu.Lock()
	c.waits = c.machine.Waiting()
	c.mu.Unlock()
}

// ask asks all adapters on all partitions how far they are.
func (c *control) ask() {
	parts := c.parts()
	names := make([]string, len(parts))
	for i, p := range parts {
		names[i] = p.name
	}
	now := time.Now()
	id := c.machine.Begin(names, now)
	for _, p := range parts {
		if !p.say(c.all, message{Kind: "ask", Round: id, State: c.machine.State()}) {
			c.machine.AskFailed(id, p.name, now)
		}
	}
}

// tell tells all adapters how far this one is.
func (c *control) tell() {
	for _, p := range c.parts() {
		p.say(c.all, message{Kind: "tell", State: c.machine.State()})
	}
}

// bye tells all adapters that this one is closed. It waits for no longer than
// byeTimeout.
func (c *control) bye(ctx context.Context, parts []*part) {
	data, err := json.Marshal(message{Kind: "bye", State: rollout.State{Hub: fmt.Sprintf("%016x", c.owner.id)}})
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, byeTimeout)
	defer cancel()
	var all sync.WaitGroup
	for _, p := range parts {
		if p.hears() {
			all.Go(func() {
				select {
				case <-p.silent: // one publish at a time
					_, _ = p.adapter.Publish(ctx, c.all, data)
				case <-ctx.Done():
				}
			})
		}
	}
	all.Wait()
}

const byeTimeout = 250 * time.Millisecond

// parts returns the partitions that take part in changes: those of the current
// set, of the next one, and of the one before.
func (c *control) parts() []*part {
	a, s := c.owner, c.machine.State()
	a.mu.RLock()
	defer a.mu.RUnlock()
	return slices.DeleteFunc(a.sortedParts(), func(p *part) bool {
		return !slices.Contains(s.Names, p.name) && !slices.Contains(s.Want, p.name) &&
			!(s.Stage == rollout.Switched && slices.Contains(s.Old, p.name))
	})
}
