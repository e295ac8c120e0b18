package fanout

import (
	"context"
	"errors"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/peers"
	"github.com/fanoutgo/fanout/internal/wire"
)

// hellos is what a hub and the others tell each other of themselves: see package
// peers, whose table it drives. One goroutine, run, sends.
type hellos struct {
	hub  *Hub
	kick chan struct{} // capacity 1: something is to be sent sooner

	mu    locks.Mutex[locks.Innermost] // guards table
	table *peers.Table

	// fresh has hubs that table knows to be there, each in the place that its ID
	// gives. It is cleared now and then, so that the table hears of them again.
	fresh [256]atomic.Uint64
}

// helloTimeout bounds how long the backend may take for one hello.
const helloTimeout = 5 * time.Second

func (y *hellos) init(h *Hub) {
	y.hub, y.kick = h, make(chan struct{}, 1)
	y.read(wire.Level)
}

// read begins with a table of a hub that reads a level. It is called before run
// has begun to send.
func (y *hellos) read(level int) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.table = peers.New(y.hub.num, level)
}

// heard notes that a frame of a hub has come. It costs next to nothing for a hub
// that has been heard lately.
func (y *hellos) heard(hub uint64) {
	if at := &y.fresh[hub%uint64(len(y.fresh))]; at.Load() != hub {
		at.Store(hub)
		y.mu.Lock()
		y.table.Frame(hub, time.Now())
		y.mu.Unlock()
	}
}

// receive takes a notice: a hello, or one that this release does not know, which
// is none of its business.
func (y *hellos) receive(channel string, frame []byte) {
	hello, err := wire.DecodeHello(frame)
	switch {
	case errors.Is(err, wire.ErrNotice):
		return
	case err != nil:
		y.hub.malformed(channel, err)
		return
	}
	y.mu.Lock()
	sooner := y.table.Hello(&hello, time.Now())
	y.mu.Unlock()
	if sooner {
		select {
		case y.kick <- struct{}{}:
		default:
		}
	}
}

// run sends hellos until the hub ends, once the hub's own channels stand.
func (y *hellos) run() {
	select {
	case <-y.hub.own.ready:
	case <-y.hub.ctx.Done():
		return
	}
	y.mu.Lock()
	y.table.Start(time.Now())
	y.mu.Unlock()
	for {
		y.mu.Lock()
		say, again := y.table.Next(time.Now())
		y.mu.Unlock()
		if !say.Nothing() {
			y.send(&say)
			continue
		}
		for i := range y.fresh {
			y.fresh[i].Store(0)
		}
		timer := time.NewTimer(time.Until(again))
		select {
		case <-timer.C:
		case <-y.kick:
		case <-y.hub.ctx.Done():
		}
		timer.Stop()
		if y.hub.ctx.Err() != nil {
			return
		}
	}
}

func (y *hellos) send(say *peers.Say) {
	hello := wire.Hello{
		Hub: y.hub.num, Time: uint64(time.Now().UnixMilli()), Level: wire.Level, Release: release(), Answer: say.Ask,
	}
	frame := wire.AppendHello(nil, &hello)
	if say.Everyone {
		err := y.notify(y.hub.everyone.way(), frame)
		y.mu.Lock()
		y.table.Said(err == nil, time.Now())
		y.mu.Unlock()
	}
	for _, hub := range say.Inboxes {
		o := y.hub.wayTo(hubID(hub))
		_ = y.notify(o, frame) // it hears the next one to everyone
		o.unhold(1)
	}
}

// canWrite reports whether all hubs that are there read a format level, so that a
// field which came with it may be written. It is false for a level above the first
// while the hub cannot know who is there: in its first two seconds, and before
// the backend can be reached.
func (h *Hub) canWrite(level int) bool { return h.alone || h.hellos.level() >= level }

func (y *hellos) level() int {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.table.Level(time.Now())
}

func (y *hellos) count() int {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.table.Count(time.Now())
}

// release is the version of this module in the program, for people to read.
var release = sync.OnceValue(func() string {
	const module = "github.com/fanoutgo/fanout"
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Path == module {
			version = info.Main.Version
		}
		for _, m := range info.Deps {
			if m.Path == module {
				version = m.Version
			}
		}
	}
	return version[:min(len(version), wire.MaxRelease)]
})

// notify sends a hello in its turn.
func (y *hellos) notify(o *outbound, hello []byte) error {
	ctx, cancel := context.WithTimeout(y.hub.ctx, helloTimeout)
	defer cancel()
	_, err := o.notify(ctx, hello)
	return err
}
