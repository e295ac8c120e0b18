package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// A hall is a contestant's hub with rooms. Rooms and members are numbered from
// 0, members in the order in which they join.
type hall interface {
	// join adds a new member to a room. The member counts in t what it
	// receives. If t is nil it never receives anything.
	join(room int, t *localTally) error
	// receive is the member's goroutine, until the hall closes. If the hall has
	// goroutines of its own for its members, it does nothing.
	receive(member int)
	publish(room int, data []byte) error
	// close ends everything, and returns when no goroutine is left.
	close() error
}

type hallOptions struct {
	rooms, members int
	// single has members receive one message at a time, for those that have a
	// choice.
	single bool
}

// localData is as long as a chat message with its names and times.
var localData = make([]byte, 450)

func roomNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("room %d", i)
	}
	return names
}

// A localCrowd is a number of members and publishers, and what they do.
type localCrowd struct {
	rooms      int
	members    int // in each room
	stuck      int // further members, in the first room, that never receive anything
	publishers int // that publish at the same time, spread over the rooms
	burst      int // messages in each room before all of them are awaited
}

// deliver measures for about d how a hall delivers.
func (c localCrowd) deliver(ctx context.Context, d time.Duration, open func(hallOptions) (hall, error)) (f figures, err error) {
	h, err := open(hallOptions{rooms: c.rooms, members: c.rooms*c.members + c.stuck})
	if err != nil {
		return nil, err
	}
	var work sync.WaitGroup
	r := newRally(ctx, c.rooms*c.members, c.burst)
	defer func() {
		r.stop()
		err = errors.Join(err, h.close())
		work.Wait()
	}()
	if err := c.enter(h, r, &work); err != nil {
		return nil, err
	}
	p := c.platform(h, r, &work)
	defer p.stop()
	if err := p.run(); err != nil { // a warm-up: stacks grow, and what is made once is made
		return nil, err
	}
	return c.measure(p, d)
}

// enter has all members join, and all except the stuck ones receive.
func (c localCrowd) enter(h hall, r *rally, work *sync.WaitGroup) error {
	for i := range c.rooms * c.members {
		if err := h.join(i%c.rooms, &r.tallies[i]); err != nil {
			return fmt.Errorf("member %d: %w", i, err)
		}
		work.Go(func() { h.receive(i) })
	}
	for range c.stuck {
		if err := h.join(0, nil); err != nil {
			return fmt.Errorf("a stuck member: %w", err)
		}
	}
	return nil
}

// measure runs p for about d and returns what a delivery costs. Everything
// counts, including the publishers' share.
func (c localCrowd) measure(p *platform, d time.Duration) (figures, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, start, messages := ownCPU(), time.Now(), 0
	for time.Since(start) < d {
		for said := 0; said < localMessages; said += c.burst {
			if err := p.run(); err != nil {
				return nil, err
			}
		}
		messages += localMessages
	}
	took, used := time.Since(start), ownCPU()-cpu
	runtime.ReadMemStats(&after)
	deliveries := float64(messages) * float64(c.rooms*c.members)
	return figures{
		"ns":  float64(took) / deliveries,
		"cpu": float64(used) / deliveries,
		// Fractions below that come from the runtime itself.
		"allocs": math.Round(1e4*float64(after.Mallocs-before.Mallocs)/deliveries) / 1e4,
	}, nil
}

// A platform has all publishers publish a burst, again and again. The caller of
// run is the first publisher; the others are goroutines, which wait in between.
type platform struct {
	rally  *rally
	speak  func(publisher int)
	begin  []chan struct{} // of the others
	spoken sync.WaitGroup
}

// platform returns one on which each publisher publishes its share of a burst.
func (c localCrowd) platform(h hall, r *rally, work *sync.WaitGroup) *platform {
	share := max(1, c.burst*c.rooms/c.publishers)
	p := &platform{rally: r, speak: func(publisher int) {
		for range share {
			if err := h.publish(publisher%c.rooms, localData); err != nil {
				r.fail(fmt.Errorf("publish: %w", err))
				return
			}
		}
	}}
	for i := range c.publishers - 1 {
		begin := make(chan struct{})
		p.begin = append(p.begin, begin)
		work.Go(func() {
			for range begin {
				p.speak(i + 1)
				p.spoken.Done()
			}
		})
	}
	return p
}

// run publishes one burst and returns when all members have received it.
func (p *platform) run() error {
	p.rally.begin()
	p.spoken.Add(len(p.begin))
	for _, begin := range p.begin {
		begin <- struct{}{}
	}
	p.speak(0)
	p.spoken.Wait()
	return p.rally.wait()
}

func (p *platform) stop() {
	for _, begin := range p.begin {
		close(begin)
	}
}

// A rally is the set of members that have to receive a burst.
type rally struct {
	tallies []localTally
	waiting atomic.Int64 // members that have not received the whole burst
	// outcome gets nil when there are none left, and an error at most once. It
	// has room for both, so that sending never waits.
	outcome chan error
	failing sync.Once
	stop    func() bool
}

func newRally(ctx context.Context, members, burst int) *rally {
	r := &rally{tallies: make([]localTally, members), outcome: make(chan error, 2)}
	for i := range r.tallies {
		r.tallies[i] = localTally{rally: r, burst: burst, left: burst}
	}
	r.stop = context.AfterFunc(ctx, func() { r.fail(context.Cause(ctx)) })
	return r
}

func (r *rally) begin()         { r.waiting.Store(int64(len(r.tallies))) }
func (r *rally) wait() error    { return <-r.outcome }
func (r *rally) fail(err error) { r.failing.Do(func() { r.outcome <- err }) }

// A localTally counts what one member receives. A member touches shared data
// only once in a burst, since counting must not cost more than delivering.
type localTally struct {
	rally *rally
	burst int
	left  int      // of this burst
	_     [40]byte // a cache line of its own
}

func (t *localTally) got(n int) {
	t.left -= n
	switch {
	case t.left < 0:
		t.rally.fail(errors.New("a member has received more than was said"))
	case t.left == 0:
		t.left = t.burst
		if t.rally.waiting.Add(-1) == 0 {
			t.rally.outcome <- nil
		}
	}
}
