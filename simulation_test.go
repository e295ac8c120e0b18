package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/memory"
	"github.com/stretchr/testify/require"
)

// TestHistorySimulation runs hubs, clients that come and go, and a backend with
// all its faults, at random, many times, in the time of testing/synctest.
// Whatever happens, each client gets every message once and in the order of the
// history, as long as the server itself loses nothing.
func TestHistorySimulation(t *testing.T) {
	for seed := range uint64(rounds(100, 300)) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { simulate(t, &dice{source: rand.New(rand.NewPCG(seed, 1))}) })
		})
	}
}

// dice may be thrown by several goroutines.
type dice struct {
	mu     sync.Mutex
	source *rand.Rand
}

func (d *dice) IntN(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.source.IntN(n)
}

// A client resumes wherever it connects.
type client struct {
	member *fanout.Member
	hub    *fanout.Hub
	at     fanout.Position
	got    []string
}

func simulate(t *testing.T, random *dice) {
	bus := memory.NewBus()
	o := keeping(100_000)
	o.Window = fanout.Window{Messages: 4 + random.IntN(40)}
	o.Linger = time.Duration(random.IntN(3)-1) * time.Second
	var nodes []*memory.Adapter
	var hubs []*fanout.Hub
	for range 3 {
		nodes = append(nodes, bus.NewAdapter())
		hubs = append(hubs, newHubOn(t, nodes[len(nodes)-1], o))
	}
	var clients []*client
	for range 5 {
		c := &client{hub: hubs[random.IntN(3)]}
		c.come(t)
		clients = append(clients, c)
	}
	faulty := random.IntN(4) // of ten frames
	bus.Intercept(func(context.Context, memory.Frame) (f memory.Fate) {
		if random.IntN(10) >= faulty {
			return f
		}
		switch random.IntN(5) {
		case 0:
			f.Miss = nodes[:random.IntN(3)]
		case 1:
			f.Drop = true
		case 2:
			f.Refuse, f.Err = true, errors.New("lost on the way there")
		case 3:
			f.Err = errors.New("lost on the way back")
		case 4:
			f.Repeat = 1
		}
		return f
	})
	bus.InterceptReads(func(context.Context, string, adapter.Query) error {
		time.Sleep(time.Duration(random.IntN(3)) * 5 * time.Millisecond)
		if random.IntN(10) == 0 {
			return errors.New("the answer was lost")
		}
		return nil
	})
	said := 0
	for range 200 {
		c := clients[random.IntN(len(clients))]
		switch random.IntN(12) {
		case 0:
			nodes[random.IntN(3)].CutSubscriber()
		case 1, 2:
			nodes[random.IntN(3)].Heal()
		case 3:
			bus.Failover(0, true)
		case 4:
			nodes[random.IntN(3)].Move()
		case 5:
			require.NoError(t, c.member.Close())
			c.hub = hubs[random.IntN(3)]
			for _, n := range nodes {
				n.Heal() // or nobody may come
			}
			c.come(t)
		case 6, 7:
			c.read(t, random.IntN(30))
		case 8:
			time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
		default:
			for range 1 + random.IntN(20) {
				said++
				require.NoError(t, hubs[random.IntN(3)].Room("x").Publish(within(t), fmt.Append(nil, said)))
			}
		}
	}
	bus.Intercept(nil)
	for _, n := range nodes {
		n.Heal()
	}
	publish(t, hubs[0].Room("x"), said+1, said+1)
	all, err := hubs[1].Room("x").History(within(t), fanout.Position{}, 0)
	require.NoError(t, err)
	require.Equal(t, numbers(1, said+1), texts(all), "the history has everything once")
	for _, c := range clients {
		c.read(t, said+1-len(c.got))
		require.Equal(t, numbers(1, said+1), c.got)
	}
}

func (c *client) come(t *testing.T) {
	c.member = connect(t, c.hub)
	require.NoError(t, c.hub.Room("x").Resume(within(t), c.member, c.at))
}

// read takes up to n messages, as many as come soon.
func (c *client) read(t *testing.T, n int) {
	for range n {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		msg, err := c.member.Receive(ctx)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return
		}
		if gap := new(fanout.GapError); errors.As(err, &gap) && gap.Room == "" {
			continue
		}
		require.NoError(t, err)
		require.True(t, c.at.Before(msg.Position), "%v after %v", msg.Position, c.at)
		c.at = msg.Position
		c.got = append(c.got, string(msg.Data))
	}
}
