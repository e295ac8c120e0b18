package redispubsub

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/internal/redispubsub/feed"
	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/redis/rueidis"
)

// A fed drives the feed of a session at a replica: it asks the replica what it
// is connected to, publishes probes at the primary, and ends the session when
// messages may have been lost between the two. Package feed has the reasons.
//
// Before anything is subscribed the session proves that the replica is fed, and
// then checks that again with each subscription and each probe interval.
//
// A subscription counts as confirmed when a probe that was sent after the
// server's confirmation has come. What came before that is dropped: it may have
// been published before the subscription, and a link to another node of the
// shard may have delivered it already.
type fed struct {
	ses     *session
	number  uint64       // of the session, so that its probes are not taken for others
	primary string       // the ID of the primary
	rounds  atomic.Int32 // rounds that were asked for and are not over

	channel atomic.Pointer[string] // of probes; nil: none is subscribed

	mu   sync.Mutex // guards all below
	feed feed.Feed
	news chan struct{} // capacity 1: a probe came
	// waiting has the subs that the server has confirmed, by the number of the
	// first probe that was sent after that; 0: it is yet to be sent.
	waiting map[*sub]uint64
}

// probePause is the pause between two probes of a session that begins.
const probePause = 50 * time.Millisecond

var (
	// errOtherPrimary means that a server is not a replica of the expected
	// primary.
	errOtherPrimary = errors.New("it is not a replica of the primary that owns the slots")
	// errRESP2 means that a connection cannot be used both for subscriptions and
	// for questions.
	errRESP2 = errors.New("reading from replicas needs RESP3 (AlwaysRESP2 of the client's options)")
	// errLinks means that a server does not say which nodes are connected to it.
	errLinks = errors.New("reading from replicas needs CLUSTER LINKS and ROLE")
)

func newFed(ses *session) *fed {
	return &fed{ses: ses, number: ses.link.engine.feds.Add(1), news: make(chan struct{}, 1), waiting: make(map[*sub]uint64)}
}

// await makes a sub that the server has confirmed wait for a probe. The link's
// goroutine begins a round after each batch of confirmations.
func (f *fed) await(s *sub) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting[s] = 0
}

// dismiss ends the wait of a sub that has lost its subscription again.
func (f *fed) dismiss(s *sub) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.waiting, s)
}

// prove proves that the replica is fed. It fails if that takes more than a part
// of the ProbeTimeout.
func (f *fed) prove(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, f.ses.link.engine.cfg.ProbeTimeout/2, feed.ErrLate)
	defer cancel()
	if err := f.identify(ctx); err != nil {
		return err
	}
	if err := f.look(ctx); err != nil {
		return err
	}
	for f.state() != feed.Answered {
		if err := f.probe(ctx); err != nil {
			return err
		}
		select {
		case <-f.news:
		case <-time.After(probePause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return f.look(ctx)
}

func (f *fed) state() feed.State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.feed.State()
}

// identify asks the replica for its primary's ID. If it is the replica of
// another primary, the link's subs move to where the replica says that their
// slots are.
func (f *fed) identify(ctx context.Context) error {
	l, conn := f.ses.link, f.ses.conn
	host := l.anySlot()
	if host == "" {
		return errIdle
	}
	result := conn.Do(ctx, conn.B().ClusterSlots().Build())
	if err := resultError(result); err != nil {
		return err
	}
	reply, err := result.ToAny()
	if err != nil {
		return err
	}
	tab, err := parseSlots(l.addr, reply)
	if err != nil {
		return err
	}
	if owner := tab.at(wire.Slot(host)); owner != l.primary {
		for _, s := range l.subs() {
			l.engine.put(s, tab.at(s.slot))
		}
		l.engine.topology.refreshTable()
		return fmt.Errorf("%w: %s and not %s", errOtherPrimary, owner, l.primary)
	}
	f.primary = tab.ids[l.primary]
	return nil
}

// anySlot returns a channel in a slot of the link's primary; "" if none is
// wanted there.
func (l *link) anySlot() string {
	if channel := l.anyChannel(); channel != "" {
		return channel
	}
	for _, s := range l.engine.all() {
		if s.spread && l.engine.topology.owner(s.slot) == l.primary {
			return s.channel
		}
	}
	return ""
}

// look asks the replica what it is connected to. It fails if messages may have
// been lost since the last time.
func (f *fed) look(ctx context.Context) error {
	conn := f.ses.conn
	results := conn.DoMulti(ctx, conn.B().Role().Build(), conn.B().ClusterLinks().Build())
	for _, r := range results {
		switch err := resultError(r); {
		case err == nil:
		case redisError(err) == nil:
			return err
		case kindOf(redisError(err).Error()).final():
			return fmt.Errorf("%w: %w", errLinks, err)
		default:
			return nil // it is loading, or busy; Check bounds that
		}
	}
	role, err1 := results[0].ToAny()
	links, err2 := results[1].ToAny()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	v := feed.View{Primary: parsePrimary(role), Since: parseLinks(links, f.primary)}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.feed.Viewed(v, time.Now())
}

// parsePrimary reads the address of the primary from a replica's reply of ROLE;
// "" if it is no replica.
func parsePrimary(reply any) string {
	fields, ok := reply.([]any)
	if role, err := parseRole(reply); err != nil || !isReplicaRole(role) || !ok || len(fields) < 3 {
		return ""
	}
	host, _ := fields[1].(string)
	port, _ := integer(fields[2])
	return net.JoinHostPort(host, strconv.FormatInt(port, 10))
}

// parseLinks reads from the reply of CLUSTER LINKS when the connection from a
// node was accepted; 0 if there is none.
func parseLinks(reply any, from string) (since int64) {
	list, _ := reply.([]any)
	for _, v := range list {
		link, _ := v.(map[string]any)
		at, err := integer(link["create-time"])
		if err == nil && link["direction"] == "from" && link["node"] == from {
			since = max(since, at)
		}
	}
	return since
}

// probe publishes a probe at the primary. Failing to do so is no error: the
// primary may be about to be replaced.
func (f *fed) probe(ctx context.Context) error {
	e, l := f.ses.link.engine, f.ses.link
	channel, err := f.subscribe(ctx)
	if err != nil || channel == "" {
		return err
	}
	node := e.topology.pipeline(l.primary)
	if node == nil {
		return nil
	}
	f.mu.Lock()
	n := f.feed.Probe(time.Now())
	for s, after := range f.waiting {
		if after == 0 {
			f.waiting[s] = n
		}
	}
	f.mu.Unlock()
	payload := strconv.FormatUint(n, 10)
	result := node.do(ctx, e.mode.publish(e.client.B(), channel, []byte(payload)))
	if elsewhere(result) {
		f.leaveChannel(channel)
		e.topology.verifyLater(l)
		return nil
	}
	e.notice(result, channel, l.primary)
	if result.Error() == nil {
		f.mu.Lock()
		f.feed.Accepted(n)
		f.mu.Unlock()
	}
	return nil
}

// subscribe returns the channel of probes, after subscribing to it if
// necessary. It is "" if the replica does not accept it now.
func (f *fed) subscribe(ctx context.Context) (string, error) {
	if channel := f.channel.Load(); channel != nil {
		return *channel, nil
	}
	l, conn := f.ses.link, f.ses.conn
	host := l.anySlot()
	if host == "" {
		return "", nil
	}
	channel := wire.SameSlot(host, fmt.Sprintf(":probe:%s:%d", l.engine.id, f.number))
	f.channel.Store(&channel) // first, since the confirmation is not waited for
	result := conn.Do(ctx, l.engine.mode.subscribe(conn.B(), []string{channel}))
	if err := result.NonRedisError(); err != nil {
		return "", err
	}
	if err := result.Error(); err != nil {
		f.leaveChannel(channel)
		if kindOf(err.Error()).final() {
			if _, moved := movedTo(err, l.addr); !moved {
				return "", clean(err)
			}
		}
		return "", nil
	}
	return channel, nil
}

// leaveChannel notes that the channel of probes is not subscribed.
func (f *fed) leaveChannel(channel string) {
	if now := f.channel.Load(); now == nil || *now != channel || !f.channel.CompareAndSwap(now, nil) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.feed.Forget()
}

// heard is called by the connection's reader with each message. It reports
// whether that was a probe.
func (f *fed) heard(m rueidis.PubSubMessage) bool {
	channel := f.channel.Load()
	if channel == nil || m.Channel != *channel {
		return false
	}
	n, err := strconv.ParseUint(m.Message, 10, 64)
	if err != nil {
		return true // somebody else's
	}
	through, err := f.arrived(n)
	if err != nil {
		f.ses.end(err)
		return true
	}
	for _, s := range through {
		s.confirm(f.ses.link, f.ses)
	}
	select {
	case f.news <- struct{}{}:
	default:
	}
	return true
}

// arrived notes that a probe has come, and returns the subs that have waited
// for it.
func (f *fed) arrived(n uint64) (subs []*sub, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	known, err := f.feed.Heard(n)
	if err != nil || !known {
		return nil, err
	}
	for s, after := range f.waiting {
		if after != 0 && after <= n {
			subs = append(subs, s)
			delete(f.waiting, s)
		}
	}
	return subs, nil
}

// ended is called by the connection's reader when the server ends a
// subscription. It reports whether that was the channel of probes.
func (f *fed) ended(channel string) bool {
	now := f.channel.Load()
	mine := now != nil && *now == channel || strings.Contains(channel, ":probe:"+f.ses.link.engine.id+":")
	if mine {
		f.leaveChannel(channel)
	}
	return mine
}

// check returns why the session must end; nil if no reason is known. It begins
// a round that may find one.
func (f *fed) check() error {
	cfg := f.ses.link.engine.cfg
	f.mu.Lock()
	err := f.feed.Check(time.Now(), cfg.ProbeTimeout)
	f.mu.Unlock()
	if err == nil {
		f.round()
	}
	return err
}

// round looks and sends a probe, without waiting. A call while a round is under
// way makes another one follow.
func (f *fed) round() {
	if f.rounds.Add(1) > 1 {
		return
	}
	l := f.ses.link
	l.engine.wg.Go(func() { // wg is not zero, since the link's goroutine is running
		for {
			n := f.rounds.Load()
			ctx, cancel := l.exchange()
			err := f.look(ctx)
			if err == nil {
				err = f.probe(ctx)
			}
			cancel()
			if err != nil {
				f.ses.end(err)
				return
			}
			if f.rounds.CompareAndSwap(n, 0) {
				return
			}
		}
	})
}
