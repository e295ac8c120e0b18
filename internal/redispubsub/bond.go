package redispubsub

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/clock"
	"github.com/redis/rueidis"
)

// This file has the scripts that may not ask which server runs them. They run
// on a connection of the keeper's own, because a connection leads to one server
// for as long as it lives: what the server said of itself on that connection is
// true of all calls on it, unless its role has changed.

// errBondBroke means that such a connection was closed.
var errBondBroke = errors.New("the connection for histories broke")

// maxRedirects is how often a call follows the nodes that nodes name.
const maxRedirects = 4

// dial takes a connection from the client.
func (k *keeper) dial(ctx context.Context, node rueidis.Client) (rueidis.DedicatedClient, error) {
	if !k.dialing.CompareAndSwap(false, true) {
		return nil, fmt.Errorf("%s: %w", k.node.addr, errDialing)
	}
	taken := dedicate(ctx, node, func() { k.dialing.Store(false) })
	select {
	case conn := <-taken:
		// With hooks the connection has a reader of its own, and a caller that
		// gives up does not end it.
		conn.SetPubSubHooks(rueidis.PubSubHooks{OnMessage: func(rueidis.PubSubMessage) {}})
		return conn, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("no connection for histories to %s: %w", k.node.addr, context.Cause(ctx))
	}
}

// introduce asks the server at the end of a connection who it is. It fails if
// that is a replica. The caller holds k.busy.
func (k *keeper) introduce(ctx context.Context, conn rueidis.DedicatedClient) (*keeping, error) {
	asked := clock.Now()
	_, now, err := try(ctx, conn, false)
	if err != nil {
		return nil, err
	}
	b := conn.B
	results := conn.DoMulti(ctx, b().Info().Section("replication").Build(), b().Info().Section("server").Build())
	var info [2]string
	for i, r := range results {
		if err := r.NonRedisError(); err != nil {
			return nil, err
		}
		info[i], _ = r.ToString() // empty if it is refused
	}
	role := field(info[0], "role")
	if role == "" {
		if role, err = roleOf(ctx, conn, conn.Do(ctx, b().Role().Build())); err != nil {
			return nil, err
		}
	}
	if isReplicaRole(role) {
		k.engine.topology.refreshTable()
		return nil, errReplica
	}
	self := ""
	if k.engine.mode.hasSlots() {
		if self, err = conn.Do(ctx, b().ClusterMyid().Build()).ToString(); err != nil {
			self = field(info[1], "run_id") // which is that of a node, too
		}
	}
	s := introduction(info[0], info[1], self, now, k.last)
	if s.way == byUnknown && k.last != nil && k.last.conn == conn {
		s.who, s.since = k.last.who, k.last.since // it is the same connection
	}
	s.conn, s.asked = conn, asked
	k.last = s
	return s, nil
}

// idDigits is how many digits of a replication ID the notes of histories have.
const idDigits = 20

// introduction returns what scripts are told about a server that has answered
// INFO replication, INFO server and CLUSTER MYID at a time, in ms. Answers are
// empty if they were refused. before is what was found out before; it may be
// nil.
func introduction(replication, server, self string, now int64, before *keeping) *keeping {
	id := hexadecimal(field(replication, "master_replid"))
	former := hexadecimal(field(replication, "master_replid2"))
	run := field(server, "run_id")
	if hexadecimal(run) == "" {
		run = ""
	}
	if id == "" {
		// A server that has started again has another run_id, and so has a
		// replica that takes over.
		id = hexadecimal(run)
	}
	if id == "" {
		return &keeping{way: byUnknown, since: now, who: "? " + strconv.FormatInt(now, 10)}
	}
	since := now
	uptime, err := strconv.ParseInt(field(server, "uptime_in_seconds"), 10, 64)
	neverReplica := former == "" && field(replication, "master_replid2") != ""
	switch {
	case before != nil && before.id == id:
		since = before.since
	case err == nil && neverReplica && uptime >= 0 && uptime < now/1000:
		since = now - uptime*1000
	}
	if !neverReplica && former == "" {
		run = "" // it may have been a replica, which has lost something
	}
	if strings.Trim(self, "0123456789abcdefghijklmnopqrstuvwxyz") != "" {
		self = "" // it has to be one word
	}
	word := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	who := fmt.Sprintf("%s %s %s %s %d", id, word(former), word(run), word(self), since)
	return &keeping{way: byTold, id: id, since: since, who: who}
}

// hexadecimal returns the first digits of an ID, or "" if it is none, or zero.
func hexadecimal(id string) string {
	if len(id) < idDigits || strings.Trim(id, "0123456789abcdefABCDEF") != "" || strings.Trim(id, "0") == "" {
		return ""
	}
	return id[:idDigits]
}

// invokeBound makes a call on the connections of keepers, and follows the nodes
// to which it is redirected.
func (e *Engine) invokeBound(ctx context.Context, c *invocation, k *keeper, s *keeping) rueidis.RedisResult {
	ctx = e.attemptContext(ctx)
	asking := false
	c.sure = true
	for range maxRedirects {
		result := k.invoke(ctx, c, s, asking)
		e.notice(result, c.channel, k.node.addr)
		re, refused := rueidis.IsRedisErr(result.Error())
		if !refused {
			return result
		}
		to, moved := re.IsMoved()
		if moved {
			e.redirected(result, k.node.addr)
		} else if to, asking = re.IsAsk(); !asking {
			return result
		}
		c.sure = !asking
		next := e.topology.pipeline(resolve(to, k.node.addr))
		if next == nil {
			e.topology.refreshClient(c.channel)
			return rueidis.NewErrorResult(adapter.Unsent(fmt.Errorf("the node %s is not known yet: %w", to, rueidis.ErrNoSlot)))
		}
		k = next.keeper
		var err error
		if s, err = k.ready(ctx); err != nil {
			return rueidis.NewErrorResult(adapter.Unsent(err))
		}
	}
	return rueidis.NewErrorResult(adapter.Unsent(errors.New("the nodes redirect to each other")))
}

// invoke makes a call once, at the keeper's node. With asking the node takes it
// though it does not own the slot yet.
func (k *keeper) invoke(ctx context.Context, c *invocation, s *keeping, asking bool) rueidis.RedisResult {
	if f := k.node.blocked.Load(); f != nil {
		return rueidis.NewErrorResult(adapter.Unsent(f.err))
	}
	k.node.used.Store(true)
	client := *k.node.client.Load()
	commands := rueidis.Commands{c.command(client.B(), s)}
	if asking {
		commands = rueidis.Commands{client.B().Asking().Build(), commands[0]}
	}
	var results []rueidis.RedisResult
	if s.conn != nil {
		results = s.conn.DoMulti(ctx, commands...)
	} else {
		results = client.DoMulti(ctx, commands...)
	}
	result := results[len(results)-1]
	if err := result.NonRedisError(); err != nil && s.conn != nil && ctx.Err() == nil {
		k.drop(s)
		if errors.Is(err, rueidis.ErrClosing) || errors.Is(err, rueidis.ErrDedicatedClientRecycled) {
			return rueidis.NewErrorResult(fmt.Errorf("%s: %w", k.node.addr, errBondBroke))
		}
	}
	return result
}
