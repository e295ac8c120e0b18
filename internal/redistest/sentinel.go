package redistest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/redis/rueidis"
)

// A Sentinel is a primary with a replica, and a sentinel that watches them.
type Sentinel struct {
	*fleet
	watch *Node
}

// sentinelSet is the name of the set of servers.
const sentinelSet = "tests"

// NewSentinel starts a primary, a replica and a sentinel, which are closed when
// the test ends. It needs containers; elsewhere it skips the test.
func NewSentinel(tb testing.TB, o Options) *Sentinel {
	tb.Helper()
	s, err := startSentinel(tb.Context(), o)
	Must(tb, err)
	tb.Cleanup(func() { closeIn(tb, s) })
	return s
}

func startSentinel(ctx context.Context, o Options) (*Sentinel, error) {
	ctx, cancel := within(ctx, 2*patience)
	defer cancel()
	f, err := launch(ctx, o.withDefaults(), 2, false)
	if err != nil {
		return nil, fmt.Errorf("start a primary and a replica: %w", err)
	}
	s := &Sentinel{fleet: f}
	if err := s.form(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start a sentinel: %w", err), s.Close())
	}
	return s, nil
}

func (s *Sentinel) form(ctx context.Context) error {
	p, ok := s.platform.(*containers)
	if !ok {
		return fmt.Errorf("a sentinel needs containers: %w", errors.ErrUnsupported)
	}
	primary, _, _ := strings.Cut(s.nodes[0].Addr(), ":")
	replica := s.nodes[1]
	if err := replica.Do(ctx, "REPLICAOF", primary, serverPort).Error(); err != nil {
		return err
	}
	// A sentinel writes to its configuration, so the configuration must be a
	// file.
	script := fmt.Sprintf("printf 'port %s\\nprotected-mode no\\nsentinel monitor %s %s %s 1\\n"+
		"sentinel down-after-milliseconds %[2]s 1000\\nsentinel failover-timeout %[2]s 5000\\n' >/data/sentinel.conf && "+
		"exec %[5]s /data/sentinel.conf --sentinel", serverPort, sentinelSet, primary, serverPort, p.binary)
	m, err := p.run(ctx, []string{"sh", "-c", script}, "")
	if err != nil {
		return err
	}
	s.watch = &Node{fleet: s.fleet, machine: m}
	s.nodes = append(s.nodes, s.watch)
	if err := s.watch.waitAnswering(ctx); err != nil {
		return err
	}
	if err := waitInStep(ctx, s.nodes[0]); err != nil {
		return err // it would begin empty if the primary dies
	}
	return poll(ctx, "wait until the sentinel knows the replica", func(ctx context.Context) error {
		replicas, err := s.watch.Do(ctx, "SENTINEL", "REPLICAS", sentinelSet).ToArray()
		if err == nil && len(replicas) != 1 {
			err = fmt.Errorf("it knows %d", len(replicas))
		}
		return err
	})
}

// Client returns a client that asks the sentinel where the primary is, closed
// when the test ends.
func (s *Sentinel) Client(tb testing.TB, opts ...func(*rueidis.ClientOption)) rueidis.Client {
	tb.Helper()
	return s.fleet.Client(tb, append(opts, func(o *rueidis.ClientOption) {
		o.InitAddress = []string{s.watch.Addr()}
		o.ForceSingleClient = false
		o.Sentinel = rueidis.SentinelOption{MasterSet: sentinelSet}
	})...)
}

// Failover makes the replica the primary while the old primary is alive. A
// sentinel that has known the replica for less than some seconds does not
// choose it yet.
func (s *Sentinel) Failover(ctx context.Context) error {
	return poll(ctx, "have the sentinel fail over", func(ctx context.Context) error {
		err := s.watch.Do(ctx, "SENTINEL", "FAILOVER", sentinelSet).Error()
		if err != nil && !strings.Contains(err.Error(), "NOGOODSLAVE") {
			return final{err}
		}
		return err
	})
}

// Primary returns the server that the sentinel names as the primary now.
func (s *Sentinel) Primary(ctx context.Context) (*Node, error) {
	addr, err := s.watch.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", sentinelSet).AsStrSlice()
	if err != nil {
		return nil, err
	}
	for _, n := range s.nodes {
		if len(addr) == 2 && n.Addr() == addr[0]+":"+addr[1] {
			return n, nil
		}
	}
	return nil, fmt.Errorf("the sentinel names %v", addr)
}

// Fail kills the primary, and waits until the replica has taken over.
func (s *Sentinel) Fail(ctx context.Context) error {
	old, err := s.Primary(ctx)
	if err != nil {
		return err
	}
	if err := old.Kill(ctx); err != nil {
		return err
	}
	return poll(ctx, "wait until the replica has taken over", func(ctx context.Context) error {
		now, err := s.Primary(ctx)
		switch {
		case err != nil:
			return err
		case now == old:
			return fmt.Errorf("the sentinel still names %s", old.Addr())
		}
		role, err := now.Do(ctx, "ROLE").ToArray()
		if err == nil && (len(role) == 0 || text(role[0]) != "master") {
			err = fmt.Errorf("%s is no primary yet", now.Addr())
		}
		return err
	})
}
