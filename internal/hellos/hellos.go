// Package hellos drives the table of package peers for one hub: it sends the
// hellos that the table wants, and tells it what has been heard.
package hellos

import (
	"context"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/internal/locks"
	"github.com/fanoutgo/fanout/internal/peers"
	"github.com/fanoutgo/fanout/internal/wire"
)

// A Hub is the hub that says hello. Its methods may wait for the backend.
type Hub interface {
	// NotifyEveryone sends a notice to all hubs.
	NotifyEveryone(notice []byte) error
	// NotifyHub sends a notice to the inbox of one hub.
	NotifyHub(hub uint64, notice []byte) error
}

// Hellos send and receive the hellos of a hub. Init makes them. The methods may
// be called concurrently, but Run only once.
type Hellos struct {
	hub  Hub
	num  uint64
	kick chan struct{} // capacity 1: something is to be sent sooner

	mu    locks.Mutex[locks.Innermost] // guards table
	table *peers.Table

	// fresh has hubs that were heard lately, each at an index that its ID gives.
	// It is cleared from time to time, so that the table is told of them again.
	fresh [256]atomic.Uint64
}

// Init makes y, which is zero, the hellos of a hub with the number num.
func (y *Hellos) Init(hub Hub, num uint64) {
	y.hub, y.num, y.kick = hub, num, make(chan struct{}, 1)
	y.SetLevel(wire.Level)
}

// SetLevel begins with an empty table of a hub that reads a format level. It
// may only be called before Run has begun to send.
func (y *Hellos) SetLevel(level int) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.table = peers.New(y.num, level)
}

// Heard notes that a frame of a hub has come. It is very cheap for a hub that
// has been heard lately.
func (y *Hellos) Heard(hub uint64) {
	if at := &y.fresh[hub%uint64(len(y.fresh))]; at.Load() != hub {
		at.Store(hub)
		y.mu.Lock()
		y.table.Frame(hub, time.Now())
		y.mu.Unlock()
	}
}

// Receive takes a hello of another hub.
func (y *Hellos) Receive(hello *wire.Hello) {
	y.mu.Lock()
	sooner := y.table.Hello(hello, time.Now())
	y.mu.Unlock()
	if sooner {
		select {
		case y.kick <- struct{}{}:
		default:
		}
	}
}

// Run sends hellos until ctx ends. It is called once the hub receives what is
// sent to it.
func (y *Hellos) Run(ctx context.Context) {
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
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

func (y *Hellos) send(say *peers.Say) {
	hello := wire.Hello{
		Hub: y.num, Time: uint64(time.Now().UnixMilli()), Level: wire.Level, Release: Release(), Answer: say.Ask,
	}
	frame := wire.AppendHello(nil, &hello)
	if say.Everyone {
		err := y.hub.NotifyEveryone(frame)
		y.mu.Lock()
		y.table.Said(err == nil, time.Now())
		y.mu.Unlock()
	}
	for _, hub := range say.Inboxes {
		_ = y.hub.NotifyHub(hub, frame) // if it is lost, the hub hears the next hello to everyone
	}
}

// Level returns the format level that all hubs that are there can read.
func (y *Hellos) Level() int {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.table.Level(time.Now())
}

// Others returns the other hubs that are there, with the time at which each was
// heard last.
func (y *Hellos) Others() map[uint64]time.Time {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.table.Others(time.Now())
}

// Gone notes that a hub is said to have ended. It is there again when something
// comes from it, but not by what comes in the first seconds.
func (y *Hellos) Gone(hub uint64) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.table.Gone(hub, time.Now())
	y.fresh[hub%uint64(len(y.fresh))].CompareAndSwap(hub, 0)
}

// Release is the version of this module in the program, for people to read.
var Release = sync.OnceValue(func() string {
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
