package redispubsub

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/redis/rueidis"
)

// checkTimeout bounds the questions to one node.
const checkTimeout = 5 * time.Second

// A checker asks one node what works there.
type checker struct {
	mode    mode
	node    rueidis.Client
	channel string // in a slot of the node
	other   string // in another slot
	report  *NodeReport
}

// Check asks the primaries that a client knows what works there. It changes
// nothing but that servers have the functions or scripts of histories
// afterwards. It fails if no primary has answered.
func Check(ctx context.Context, client rueidis.Client, sharded bool) (*Report, error) {
	if client == nil {
		return nil, errors.New("check: the client is nil")
	}
	m := modeOf(sharded, client.Mode())
	r := &Report{PubSub: "classic Pub/Sub", Shape: "one server"}
	if sharded {
		r.PubSub = "sharded Pub/Sub"
	}
	if m.hasSlots() {
		r.Shape = "cluster"
		// This makes the client find the nodes.
		client.Do(ctx, client.B().Exists().Key("fanout").Build())
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var errs []error
	for addr, node := range client.Nodes() {
		wg.Go(func() {
			n, err := checkNode(ctx, m, addr, node)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, errReplica):
			case err != nil:
				errs = append(errs, fmt.Errorf("check: %s: %w", addr, explain(err)))
			default:
				r.Nodes = append(r.Nodes, *n)
			}
		})
	}
	wg.Wait()
	if len(r.Nodes) == 0 {
		if len(errs) == 0 {
			errs = []error{fmt.Errorf("check: %w", errNoNodes)}
		}
		return nil, errors.Join(errs...)
	}
	for _, err := range errs {
		r.Unreachable = append(r.Unreachable, err.Error())
	}
	slices.SortFunc(r.Nodes, func(a, b NodeReport) int { return strings.Compare(a.Addr, b.Addr) })
	if slices.ContainsFunc(r.Nodes, func(n NodeReport) bool { return n.ManyShards }) {
		r.Shape = "one endpoint before many shards"
	}
	return r, nil
}

// checkNode asks one node. The error is errReplica if it is a replica.
func checkNode(ctx context.Context, m mode, addr string, node rueidis.Client) (*NodeReport, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	c := &checker{mode: m, node: node, report: &NodeReport{Addr: addr, Counts: -1}}
	if replica, err := isReplica(ctx, node); err != nil {
		return nil, err
	} else if replica {
		return nil, errReplica
	}
	if err := c.choose(ctx, addr); err != nil {
		return nil, err
	}
	c.askConfiguration(ctx)
	if err := c.tryCommands(ctx); err != nil {
		return nil, err
	}
	if err := c.tryRooms(ctx); err != nil {
		return nil, err
	}
	c.tryHistories(ctx)
	c.report.advise(m)
	return c.report, nil
}

// choose finds channels in slots of the node. A name that nobody else has makes
// sure that no key is there.
func (c *checker) choose(ctx context.Context, addr string) error {
	tab := soleOwner(addr)
	if c.mode.hasSlots() {
		reply, err := c.node.Do(ctx, c.node.B().ClusterSlots().Build()).ToAny()
		if err != nil {
			return err
		}
		if tab, err = parseSlots(addr, reply); err != nil {
			return err
		}
		if !tab.owns(addr) {
			return errReplica // a primary without slots has no rooms
		}
	}
	run := rand.Uint64()
	for n := 0; c.other == "" && n < 1<<20; n++ {
		channel := fmt.Sprintf("fanout:r:{check %016x %d}", run, n)
		switch {
		case tab.at(wire.Slot(channel)) != addr:
		case c.channel == "":
			c.channel = channel
		case wire.Slot(channel) != wire.Slot(c.channel):
			c.other = channel
		}
	}
	if c.channel == "" {
		return errReplica
	}
	return nil
}

// askConfiguration finds out about the server.
func (c *checker) askConfiguration(ctx context.Context) {
	r := c.report
	info, _ := c.node.Do(ctx, c.node.B().Info().Section("server").Build()).ToString()
	r.Version = version(info)
	r.OutputLimit = -1
	if m, err := c.node.Do(ctx, c.node.B().ConfigGet().Parameter("client-output-buffer-limit").Build()).AsStrMap(); err == nil {
		r.OutputLimit = parseOutputLimit(m["client-output-buffer-limit"])
	}
	if m, err := c.node.Do(ctx, c.node.B().ConfigGet().Parameter("maxmemory-policy").Build()).AsStrMap(); err == nil {
		r.Eviction = m["maxmemory-policy"]
	}
	if r.Eviction == "" {
		memory, _ := c.node.Do(ctx, c.node.B().Info().Section("memory").Build()).ToString()
		r.Eviction = field(memory, "maxmemory_policy")
	}
}

// version returns the name and version of a server from INFO.
func version(info string) string {
	if v := field(info, "valkey_version"); v != "" {
		return "Valkey " + v
	}
	if v := field(info, "dragonfly_version"); v != "" {
		return "Dragonfly " + v
	}
	if v := field(info, "redis_version"); v != "" {
		return "Redis " + v
	}
	return ""
}

// A trial is a command that is tried. It has no effect where the key does not
// exist.
type trial struct {
	use     Use
	command []string // with KEY for a key of histories
}

func (m mode) trials() []trial {
	list := []trial{
		{ForSafety, []string{"ROLE"}},
		{ForSafety, []string{"INFO", "server"}},
		{Optional, []string{"CONFIG", "GET", "proto-max-bulk-len"}},
	}
	if m.hasSlots() {
		list = append(list,
			trial{ForRooms, []string{"CLUSTER", "SLOTS"}},
			trial{ForRooms, []string{"EXISTS", "KEY"}},
			trial{ForSafety, []string{"CLUSTER", "MYID"}})
	}
	if m.replicasDeliver() {
		list = append(list, trial{ForReplicas, []string{"CLUSTER", "LINKS"}})
	}
	for _, command := range []string{
		"TIME", "HMGET KEY f", "HGET KEY f", "HLEN KEY", "HGETALL KEY", "HDEL KEY f", "DEL KEY", "PEXPIRE KEY 1",
		"HSET KEY f v f", // the arguments are wrong, so nothing is written
		"XADD KEY NOMKSTREAM MINID ~ 1-1 1-1 f v", "XRANGE KEY - +", "XREVRANGE KEY + -", "XTRIM KEY MINID 1-1",
	} {
		list = append(list, trial{ForHistories, strings.Fields(command)})
	}
	return list
}

// tryCommands tries all commands but those of Pub/Sub and scripts.
func (c *checker) tryCommands(ctx context.Context) error {
	key, _ := wire.HistoryKeys(c.channel)
	trials := c.mode.trials()
	commands := make(rueidis.Commands, len(trials))
	for i, t := range trials {
		b := c.node.B().Arbitrary(t.command[0])
		if len(t.command) > 1 && t.command[1] == "KEY" {
			commands[i] = b.Keys(key).Args(t.command[2:]...).Build()
		} else {
			commands[i] = b.Args(t.command[1:]...).Build()
		}
	}
	for i, result := range c.node.DoMulti(ctx, commands...) {
		if err := result.NonRedisError(); err != nil {
			return err
		}
		t := trials[i]
		name := t.command[0]
		if name == "CLUSTER" || name == "CONFIG" {
			name += " " + t.command[1]
		}
		err := resultError(result)
		if k := replyKind(err); k != kindDenied && k != kindUnsupported {
			if k != kindMisused || t.command[0] == "HSET" {
				err = nil
			}
		}
		c.report.add(name, t.use, err)
	}
	return nil
}

// tryRooms subscribes, publishes and unsubscribes.
func (c *checker) tryRooms(ctx context.Context) error {
	taken := dedicate(ctx, c.node, func() {})
	var conn rueidis.DedicatedClient
	select {
	case conn = <-taken:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer conn.Close()
	heard := make(chan struct{}, 1)
	conn.SetPubSubHooks(rueidis.PubSubHooks{OnMessage: func(rueidis.PubSubMessage) {
		select {
		case heard <- struct{}{}:
		default:
		}
	}})
	try := func(name string, use Use, cmd rueidis.Completed) error {
		result := conn.Do(ctx, cmd)
		if err := result.NonRedisError(); err != nil {
			return err
		}
		c.report.add(name, use, resultError(result))
		return nil
	}
	names := [...]string{"SUBSCRIBE", "UNSUBSCRIBE"}
	if c.mode.sharded() {
		names = [...]string{"SSUBSCRIBE", "SUNSUBSCRIBE"}
	}
	if err := try(names[0], ForRooms, c.mode.subscribe(conn.B(), []string{c.channel})); err != nil {
		return err
	}
	result := c.node.Do(ctx, c.mode.publish(c.node.B(), c.channel, []byte("check")))
	if err := result.NonRedisError(); err != nil {
		return err
	}
	n, err := result.AsInt64()
	c.report.add(c.mode.publishName(), ForRooms, resultError(result))
	if err == nil {
		c.report.Counts = int(n)
	}
	select {
	case <-heard:
		c.report.Heard = true
	case <-time.After(time.Second):
	}
	if c.mode.mayHideShards() {
		err := conn.Do(ctx, c.mode.subscribe(conn.B(), []string{c.channel, c.other})).Error()
		c.report.ManyShards = isCrossSlot(err)
	}
	return try(names[1], ForLeaving, c.mode.unsubscribe(conn.B(), []string{c.channel}))
}

// tryHistories finds out how the node would keep histories.
func (c *checker) tryHistories(ctx context.Context) {
	asks, _, byFCall := try(ctx, c.node, true)
	c.report.add("FCALL", Alternative, byFCall)
	w := byFunction
	if byFCall != nil || !asks {
		var byEval error
		asks, _, byEval = try(ctx, c.node, false)
		c.report.add("EVALSHA", ForHistories, byEval)
		replication, _ := c.node.Do(ctx, c.node.B().Info().Section("replication").Build()).ToString()
		server, _ := c.node.Do(ctx, c.node.B().Info().Section("server").Build()).ToString()
		switch {
		case byEval != nil:
			c.report.Histories = "none"
			return
		case asks:
			w = byScript
		default:
			w = introduction(replication, server, "", 1, nil).way
		}
	}
	c.report.Histories = w.String()
	c.report.Doubtful = w == byUnknown
}
