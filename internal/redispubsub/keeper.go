package redispubsub

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/internal/clock"
	"github.com/redis/rueidis"
)

// A way is how a node keeps histories. All ways run the same code.
type way uint8

const (
	// byFunction calls functions.
	byFunction way = iota + 1
	// byScript runs scripts, because functions are refused. Like functions,
	// scripts ask the server for its replication ID.
	byScript
	// byTold runs scripts that may not ask. The keeper asks, on a connection of
	// its own, and tells them.
	byTold
	// byUnknown runs scripts on a server that does not tell its replication ID
	// at all. Each connection to it counts as a possible loss.
	byUnknown
)

func (w way) String() string {
	return [...]string{
		"not known",
		"by functions",
		"by EVALSHA, since functions are refused or may not call INFO",
		"by EVALSHA without INFO: the hub asks for the replication ID",
		"by EVALSHA without a replication ID: each new connection to a server counts as a possible loss",
	}[w]
}

// noneStands is how long a node that can keep no histories is not asked again.
const noneStands = 5 * time.Second

// A keeper finds out how its node keeps histories: when one is needed for the
// first time, and when the node may have been replaced. The methods may be
// called concurrently.
type keeper struct {
	engine *Engine
	node   *pipeline

	busy    chan struct{}           // capacity 1: held while it asks
	state   atomic.Pointer[keeping] // nil: not known
	none    atomic.Pointer[refusal] // why there is no way; see noneStands
	dialing atomic.Bool             // the client is making a connection
	gone    atomic.Bool             // the node is no longer used

	last *keeping // the latest with a connection; the holder of busy uses it
}

// A keeping is how a node keeps histories, until that may have changed.
type keeping struct {
	way   way
	conn  rueidis.DedicatedClient // with byTold and byUnknown; else nil
	who   string                  // what scripts are told; see introduction
	id    string                  // the replication ID in who
	since int64                   // the time in who
	asked int64                   // when the server was asked; see clock
}

// ready returns how the node keeps histories, and finds it out if necessary. It
// waits no longer than an attempt may take. Nothing was sent if it fails.
func (k *keeper) ready(ctx context.Context) (*keeping, error) {
	if s := k.state.Load(); s != nil && !k.mustAsk(s) {
		return s, nil
	}
	ctx, hold := k.engine.attempts.Bound(ctx)
	defer hold.Release()
	select {
	case k.busy <- struct{}{}:
		defer func() { <-k.busy }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	s := k.state.Load()
	switch {
	case s == nil:
	case !k.mustAsk(s):
		return s, nil
	default:
		again, err := k.introduce(ctx, s.conn)
		if err == nil {
			k.state.CompareAndSwap(s, again)
			return again, nil
		}
		if ctx.Err() != nil && !errors.Is(context.Cause(ctx), errSilent) {
			return nil, err // the caller has given up, and the connection may be fine
		}
		k.drop(s)
	}
	if r := k.none.Load(); r != nil && time.Since(r.at) < noneStands {
		return nil, r.err
	}
	s, err := k.find(ctx)
	if err != nil {
		if errors.As(err, new(*cannotKeep)) {
			k.none.Store(&refusal{err, time.Now()})
		}
		return nil, err
	}
	k.state.Store(s)
	if k.gone.Load() {
		k.drop(s)
	}
	return s, nil
}

// mustAsk reports whether the server at the end of a keeping's connection has
// to be asked again, since its role may have changed.
func (k *keeper) mustAsk(s *keeping) bool {
	every := k.engine.cfg.ProbeInterval
	if every <= 0 {
		every = askRoleEvery
	}
	return s.conn != nil && clock.Since(s.asked) > every
}

// askRoleEvery is how often a server is asked for its role without probes.
const askRoleEvery = 2 * time.Second

// find tries the ways, the best one first.
func (k *keeper) find(ctx context.Context) (*keeping, error) {
	node := *k.node.client.Load()
	asks, _, byFCall := try(ctx, node, true)
	switch {
	case byFCall == nil && asks:
		return k.found(&keeping{way: byFunction}), nil
	case byFCall != nil && !refuses(byFCall):
		return nil, byFCall
	}
	asks, _, byEval := try(ctx, node, false)
	switch {
	case byEval == nil && asks:
		return k.found(&keeping{way: byScript}), nil
	case byEval != nil && !refuses(byEval):
		return nil, byEval
	case byEval != nil:
		return nil, &cannotKeep{byFCall, byEval}
	}
	conn, err := k.dial(ctx, node)
	if err != nil {
		return nil, err
	}
	s, err := k.introduce(ctx, conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return k.found(s), nil
}

// try calls the probe, as a function or as a script, and loads it if the server
// lacks it. It returns whether it may ask for the replication ID, and the
// server's time in ms.
func try(ctx context.Context, node rueidis.CommandClient, functions bool) (asks bool, now int64, err error) {
	for attempt := 1; ; attempt++ {
		cmd := probeProcedure.evalsha(node.B(), nil, nil, "")
		if functions {
			cmd = probeProcedure.fcall(node.B(), nil, nil)
		}
		result := node.Do(ctx, cmd)
		if err = resultError(result); err == nil {
			reply, err := asArray(result.ToAny())
			if err != nil {
				return false, 0, err
			}
			return parseProbe(reply)
		}
		if !missing(err) || attempt == callAttempts {
			return false, 0, err
		}
		if err = loadInto(ctx, node, functions); err != nil {
			return false, 0, err
		}
	}
}

// refuses reports whether a server has answered that it does not accept a
// command, ever.
func refuses(err error) bool {
	return replyKind(err).final() && !errors.As(err, new(*connectionError))
}

// A cannotKeep says why a node can keep no histories.
type cannotKeep struct{ functions, scripts error }

func (c *cannotKeep) Error() string {
	if c.functions == nil {
		return fmt.Sprintf("functions may not call INFO; scripts: %v", c.scripts)
	}
	return fmt.Sprintf("functions: %v; scripts: %v", c.functions, c.scripts)
}

func (c *cannotKeep) Unwrap() []error {
	if c.functions == nil {
		return []error{c.scripts}
	}
	return []error{c.functions, c.scripts}
}

// found logs how histories are kept, once for each way.
func (k *keeper) found(s *keeping) *keeping {
	e := k.engine
	k.none.Store(nil)
	if s.conn == nil {
		s.asked = clock.Now()
		e.usual.Store(s)
	}
	first := e.ways.Or(1<<s.way)&(1<<s.way) == 0
	switch {
	case s.way == byUnknown && !first:
		err := fmt.Errorf("%s: a new connection to %s, which does not say which server it is: histories there may have lost messages", e.cfg.Name, k.node.addr)
		e.refusals.noteLoss(err)
		e.journal.Warn("a new connection to a server that does not say which one it is: its histories may have lost messages, and begin a new epoch",
			"node", k.node.addr)
	case s.way == byUnknown:
		e.journal.Warn("histories are kept "+s.way.String(), "node", k.node.addr)
	case first:
		e.journal.Info("histories are kept "+s.way.String(), "node", k.node.addr)
	}
	return s
}

// forget makes the keeper find out again, since the node may be another server.
func (k *keeper) forget() {
	k.none.Store(nil)
	if s := k.state.Load(); s != nil {
		k.drop(s)
	}
}

// drop ends a keeping, and its connection.
func (k *keeper) drop(s *keeping) {
	if k.state.CompareAndSwap(s, nil) && s.conn != nil {
		k.engine.wg.Go(s.conn.Close) // with a silent server it takes a second
	}
}

// close ends the keeper.
func (k *keeper) close() {
	k.gone.Store(true)
	k.forget()
}

// differs reports whether a node that has refused a call keeps histories in
// another way now.
func (k *keeper) differs(ctx context.Context, s *keeping, err error) bool {
	if k == nil || !refuses(err) || begun(redisError(err).Error()) || clock.Since(s.asked) < time.Second {
		return false
	}
	k.drop(s)
	again, err := k.ready(ctx)
	return err == nil && again.way != s.way
}

// keeperOf returns the keeper of the node that owns a channel's slot. It waits
// until the owner is known. The keeper is nil if the client does not know that
// node yet, and has to find it.
func (e *Engine) keeperOf(ctx context.Context, channel string) (*keeper, error) {
	addr := e.topology.owner(e.mode.slot(channel))
	if p := e.topology.pipeline(addr); p != nil {
		return p.keeper, nil
	}
	if addr != "" && e.usual.Load() != nil {
		return nil, nil
	}
	ctx, hold := e.attempts.Bound(ctx)
	defer hold.Release()
	p, _, err := e.topology.node(ctx, channel)
	if err != nil {
		return nil, adapter.Unsent(err)
	}
	return p.keeper, nil
}

// keepingOf returns how the node that owns a channel's slot keeps histories.
func (e *Engine) keepingOf(ctx context.Context, channel string) (k *keeper, s *keeping, err error) {
	if k, err = e.keeperOf(ctx, channel); err != nil {
		return nil, nil, err
	}
	if k == nil {
		return nil, e.usual.Load(), nil
	}
	if s, err = k.ready(ctx); err != nil {
		e.notice(rueidis.NewErrorResult(err), channel, k.node.addr)
		return nil, nil, adapter.Unsent(err)
	}
	return k, s, nil
}
