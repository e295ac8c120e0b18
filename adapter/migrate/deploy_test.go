package migrate_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/fanoutgo/fanout/adapter/migrate"
	"github.com/fanoutgo/fanout/internal/deploytest"
	"github.com/fanoutgo/fanout/internal/redistest"
)

// A deploy is one way in which TestDeploy restarts hubs.
type deploy struct {
	lossy bool // links break
	early bool // the second deploy does not wait until histories are copied
}

var deploys = flag.Int("deploys", 0, "how many seeds TestDeploy has of each kind; 0: 8, or 16 with FANOUT_TEST_ALL=1")

// TestDeploy restarts hubs on adapter/memory, with many seeds, in the time of
// testing/synctest. With -v it prints sums, which docs/migrating.md has.
func TestDeploy(t *testing.T) {
	seeds := *deploys
	if seeds == 0 {
		seeds = redistest.Rounds(8, 16)
	}
	for name, how := range map[string]deploy{
		"nothing is missing, comes twice, or in another order":                  {},
		"links that break lose nothing of a room with a history":                {lossy: true},
		"nothing is missing without a gap if the second deploy comes too early": {early: true},
	} {
		t.Run(name, func(t *testing.T) {
			var sum deploytest.Figures
			for seed := range uint64(seeds) {
				t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						f := deployInMemory(t, seed, how)
						sum.Messages, sum.Gaps = sum.Messages+f.Messages, sum.Gaps+f.Gaps
					})
				})
			}
			t.Logf("%d deploys, %d messages, %d gaps", seeds, sum.Messages, sum.Gaps)
		})
	}
}

// pauseOf returns the longest pause of a publisher, in ms. With 6 s some rooms
// are quiet when the hubs flip. With 40 s most are quiet for more than ten
// seconds, and are copied by hubs that settle.
func pauseOf(seed uint64, how deploy) int {
	switch {
	case how.early:
		return []int{6000, 40_000}[seed%2]
	case seed%4 == 3:
		return 6000
	case seed%4 == 1:
		return 40_000
	}
	return 40
}

// deployInMemory makes one deploy on adapter/memory.
func deployInMemory(t *testing.T, seed uint64, how deploy) deploytest.Figures {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed, 1))
	intN := func(n int) int { mu.Lock(); defer mu.Unlock(); return random.IntN(n) }
	buses := []*memory.Bus{memory.NewBus(), memory.NewBus()}
	var nodes []*memory.Adapter
	for _, bus := range buses {
		bus.Intercept(func(context.Context, memory.Frame) memory.Fate {
			switch intN(8) {
			case 0:
				time.Sleep(time.Duration(intN(50)) * time.Millisecond) // on its way there
			case 1, 2:
				return memory.Fate{Delay: time.Duration(intN(20)) * time.Millisecond}
			}
			return memory.Fate{}
		})
	}
	adapterOf := func(bus *memory.Bus) func() adapter.Adapter {
		return func() adapter.Adapter {
			a := bus.NewAdapter()
			mu.Lock()
			nodes = append(nodes, a)
			mu.Unlock()
			return a
		}
	}
	pause := pauseOf(seed, how)
	d := &deploytest.Deploy{
		T: t, From: adapterOf(buses[0]), To: adapterOf(buses[1]), Lossy: how.lossy,
		Options: migrate.Options{Settle: time.Duration(3000+intN(3000)) * time.Millisecond, Logger: slog.New(slog.DiscardHandler)},
		Pause:   func() time.Duration { return time.Duration(1+intN(pause)) * time.Millisecond },
	}
	if how.early {
		d.Early = func() time.Duration { return time.Duration(intN(9000)) * time.Millisecond }
	}
	ctx, cancel := context.WithCancel(t.Context())
	var faults sync.WaitGroup
	if how.lossy {
		faults.Go(func() {
			for ctx.Err() == nil {
				time.Sleep(time.Duration(intN(6000)) * time.Millisecond)
				mu.Lock()
				a := nodes[random.IntN(len(nodes))]
				mu.Unlock()
				a.CutSubscriber()
				time.Sleep(time.Duration(intN(100)) * time.Millisecond)
				a.Heal()
			}
		})
	}
	d.Run()
	cancel()
	faults.Wait()
	return d.Figures()
}
