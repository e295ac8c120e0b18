package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/require"
)

// A tally counts what a member gets.
type tally struct {
	m       *fanout.Member
	from    int // published before it joined
	seen    map[string]bool
	got     int
	missed  int
	unknown bool
	last    int
	gaps    []int
}

// read receives n times, or until nothing comes for a second: then it is the
// end.
func (c *tally) read(t *testing.T, n int) (end bool) {
	for range n {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		msg, err := c.m.Receive(ctx)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return true
		}
		gap := new(fanout.GapError)
		if errors.As(err, &gap) {
			if gap.Room == "x" {
				c.missed += gap.Missed
				c.gaps = append(c.gaps, gap.Missed)
				c.unknown = c.unknown || gap.Unknown
			}
			continue
		}
		require.NoError(t, err)
		s := string(msg.Data)
		require.False(t, c.seen[s], "twice %s", s)
		c.seen[s] = true
		var num int
		fmt.Sscan(s, &num)
		require.Greater(t, num, c.last)
		c.last = num
		c.got++
	}
	return false
}

// Whatever links are cut, and whatever is trimmed or read late, a member's
// messages and gaps add up to what was published, in order, and nothing comes
// twice. Rooms keep few messages and have small windows, so that most of it is
// trimmed, often before the hub itself has come to it.
func TestCountingSimulation(t *testing.T) {
	for seed := range uint64(rounds(100, 300)) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { tallyUp(t, &dice{source: rand.New(rand.NewPCG(seed, 7))}) })
		})
	}
}

func tallyUp(t *testing.T, random *dice) {
	bus := memory.NewBus()
	keep := 5 + random.IntN(60)
	o := keeping(keep)
	o.Window = fanout.Window{Messages: 4 + random.IntN(40)}
	o.Overflow = []fanout.Overflow{fanout.Skip, fanout.Latest}[random.IntN(2)]
	o.Linger = time.Duration(random.IntN(3)-1) * time.Second
	var nodes []*memory.Adapter
	var hubs []*fanout.Hub
	for range 2 {
		nodes = append(nodes, bus.NewAdapter())
		hubs = append(hubs, newHubOn(t, nodes[len(nodes)-1], o))
	}
	var clients []*tally
	said := 0
	come := func(hub *fanout.Hub) *tally {
		return &tally{m: connect(t, hub, "x"), from: said, seen: map[string]bool{}}
	}
	for range 4 {
		clients = append(clients, come(hubs[random.IntN(2)]))
	}
	log := ""
	for range 60 {
		switch random.IntN(8) {
		case 0:
			i := random.IntN(2)
			nodes[i].CutSubscriber()
			log += fmt.Sprint(" cut", i)
		case 1, 2:
			i := random.IntN(2)
			nodes[i].Heal()
			log += fmt.Sprint(" heal", i)
		case 3:
			n := random.IntN(30)
			i := random.IntN(4)
			clients[i].read(t, n)
			log += fmt.Sprint(" read", i, ":", n)
		case 4:
			time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
			log += " sleep"
		default:
			n := 1 + random.IntN(60)
			hi := random.IntN(2)
			r := hubs[hi].Room("x")
			log += fmt.Sprint(" h", hi)
			if random.IntN(2) == 0 {
				log += "together"
				publishTogether(t, r, said+1, said+n)
			} else {
				publish(t, r, said+1, said+n)
			}
			said += n
			log += fmt.Sprint(" pub", n, r.Name())
		}
	}
	for _, n := range nodes {
		n.Heal()
	}
	time.Sleep(3 * time.Second)
	for _, h := range hubs {
		said++
		require.NoError(t, h.Room("x").Publish(within(t), fmt.Append(nil, said)))
	}
	for i, c := range clients {
		for !c.read(t, 1) {
		}
		if c.got+c.missed != said-c.from || c.unknown {
			t.Errorf("keep %d client %d overflow %v window %d: got %d missed %d unknown %v, published %d gaps %v;%s", keep, i, o.Overflow, o.Window.Messages, c.got, c.missed, c.unknown, said-c.from, c.gaps, log)
		}
	}
}
