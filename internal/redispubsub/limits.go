package redispubsub

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/redis/rueidis"
)

const (
	// defaultOutput is the default of the hard limit of a subscriber's output
	// buffer (client-output-buffer-limit pubsub), in bytes. It is assumed for
	// servers that may not be asked.
	defaultOutput = 32 << 20
	// besides is the least that a server keeps for a subscriber in addition to
	// one frame, in bytes: channel names, headers, and a buffer for replies.
	besides = 64 << 10
	// certain is the longest frame, in bytes, that is sent before servers have
	// been asked: no sensible limit is lower.
	certain = 512 << 10
	// askLimitsEvery bounds how often servers are asked again because a frame
	// is longer than the last known limit.
	askLimitsEvery = time.Second
)

// limits knows how long a frame may be. A server would accept a longer one, and
// then disconnect every hub that should get it, in all its rooms. So such a
// frame is refused before it is sent.
//
// The lowest limit of any node applies to all.
type limits struct {
	max    atomic.Int64  // bytes of a frame; 0: no node has been asked yet
	asking chan struct{} // capacity 1: full while nodes are being asked

	mu    sync.Mutex // guards all below
	nodes map[string]int64
	asked time.Time // when all were
}

// allows reports whether a frame of n bytes is known to be short enough.
func (l *limits) allows(n int) bool {
	most := l.max.Load()
	return int64(n) <= most || most == 0 && n <= certain
}

// checkLength returns an error if a frame of n bytes is too long. Before that
// it asks the servers again, since their configuration may have changed.
func (e *Engine) checkLength(ctx context.Context, n int) error {
	if e.limits.allows(n) {
		return nil
	}
	most, err := e.askLimits(ctx)
	switch {
	case err != nil:
		return adapter.Unsent(fmt.Errorf("%s: publish: %w", e.cfg.Name, err))
	case int64(n) > most:
		return adapter.Unsent(fmt.Errorf("%s: publish: %w: a frame of %d bytes is too long: with their client-output-buffer-limit for pubsub (or proto-max-bulk-len, client-query-buffer-limit) the servers accept %d at most, and would disconnect all subscribers",
			e.cfg.Name, adapter.ErrRefused, n, most))
	}
	return nil
}

// askLimits asks all nodes, unless that was done a moment ago, and returns the
// length of the longest frame that all of them accept.
func (e *Engine) askLimits(ctx context.Context) (int64, error) {
	l := &e.limits
	select {
	case l.asking <- struct{}{}:
		defer func() { <-l.asking }()
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-e.ctx.Done():
		return 0, e.errClosed()
	}
	l.mu.Lock()
	fresh := time.Since(l.asked) < askLimitsEvery
	l.mu.Unlock()
	if fresh {
		return l.max.Load(), nil
	}
	nodes := e.client.Nodes()
	var wg sync.WaitGroup
	for addr, node := range nodes {
		wg.Go(func() { e.askLimitOf(addr, node) })
	}
	wg.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.nodes, func(addr string, _ int64) bool { return nodes[addr] == nil })
	l.asked = time.Now()
	return l.update(), nil
}

// askLimitOf asks one node.
func (e *Engine) askLimitOf(addr string, node rueidis.Client) {
	most := askLimit(e.ctx, node)
	l := &e.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nodes[addr] = most
	l.update()
}

// update finds the lowest limit. The caller holds l.mu.
func (l *limits) update() int64 {
	most := int64(math.MaxInt64)
	for _, n := range l.nodes {
		most = min(most, n)
	}
	if len(l.nodes) == 0 {
		most = longest(defaultOutput) // no node answers; the publish will fail with the reason
	}
	l.max.Store(most)
	return most
}

// askLimit asks a node, and returns the length of the longest frame that it
// accepts.
func askLimit(ctx context.Context, node rueidis.Client) int64 {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	ask := func(name string) rueidis.Completed { return node.B().ConfigGet().Parameter(name).Build() }
	replies := node.DoMulti(ctx, ask("client-output-buffer-limit"), ask("proto-max-bulk-len"), ask("client-query-buffer-limit"))
	value := func(i int) string {
		m, _ := replies[i].AsStrMap() // empty after an error: it does not let us ask
		for _, v := range m {
			return v
		}
		return ""
	}
	most := longest(parseOutputLimit(value(0)))
	for i := 1; i < len(replies); i++ {
		if n, err := strconv.ParseInt(value(i), 10, 64); err == nil && n > 0 {
			most = min(most, max(n-besides, n/2))
		}
	}
	return most
}

// parseOutputLimit reads the hard limit for subscribers from the value of
// client-output-buffer-limit: class, hard limit, soft limit, seconds, repeated
// for each class. Zero means that there is no limit.
func parseOutputLimit(value string) int64 {
	f := strings.Fields(value)
	for i := 0; i+3 < len(f); i += 4 {
		if f[i] != "pubsub" {
			continue
		}
		n, err := strconv.ParseInt(f[i+1], 10, 64)
		if err == nil && n >= 0 {
			return n
		}
	}
	return defaultOutput
}

// longest returns the length of the longest frame that keeps an output buffer
// below a limit. Servers count allocated bytes, and their allocator has four
// sizes for each doubling.
func longest(limit int64) int64 {
	if limit == 0 {
		return math.MaxInt64
	}
	room := limit - besides
	if room < limit/2 {
		return max(limit/2, 1)
	}
	step := int64(1) << max(bits.Len64(uint64(room))-3, 0)
	return max(room/step*step-besides, limit/2)
}
