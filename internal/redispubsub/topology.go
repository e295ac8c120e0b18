package redispubsub

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/internal/wire"
	"github.com/redis/rueidis"
)

const (
	slots = wire.Slots
	// roundPause is the least time between two rounds of questions.
	roundPause = 30 * time.Millisecond
	// refreshEvery is how often who publishes classic Pub/Sub in a cluster asks
	// who owns what: PUBLISH is not redirected.
	refreshEvery = 2 * time.Second
	// askTimeout bounds one question to one node.
	askTimeout = 500 * time.Millisecond
	// surveyPause is how long the first that answer wait for the majority.
	surveyPause = 50 * time.Millisecond
	// askAtOnce is the most nodes that a round asks.
	askAtOnce = 8
)

// A table says who owns the slots. Without a cluster it has one owner. Slots may
// be given to other owners while it is in use.
type table struct {
	addrs []string // [0] is "": nobody
	owner [slots]atomic.Uint32
}

// errNoSlots means that a node knows nothing of the cluster: it has lost its
// memory, or has never been a part of it.
var errNoSlots = errors.New("it knows no owner of any slot")

func (t *table) at(slot uint16) string { return t.addrs[t.owner[slot].Load()] }

// A topology finds homes for subs that have none, or whose home does not
// answer. It asks the nodes only when there is a reason. A node's word that it
// does not own a slot is final; whom it names instead may be wrong, and is then
// corrected by that one's MOVED.
//
// One goroutine, run; the other methods may be called by anyone and do not wait.
type topology struct {
	engine  *Engine
	kick    chan struct{}
	current atomic.Pointer[table]
	known   chan struct{} // closed when there is a first table
	once    sync.Once
	nodes   atomic.Pointer[map[string]*pipeline] // as the client knows them
	failure atomic.Pointer[failure]              // why nobody has answered the latest round; nil: somebody has

	nudging atomic.Bool // the client is being asked for the homes of channels

	mu      sync.Mutex // guards all below
	doubted map[*link]struct{}
	nudges  map[string]struct{} // channels whose home the client does not know
	stale   bool                // what we know has turned out wrong
}

func (t *topology) init(e *Engine) {
	t.engine = e
	t.kick = make(chan struct{}, 1)
	t.known = make(chan struct{})
	t.doubted = make(map[*link]struct{})
}

// owner returns the address of a slot's owner, or "" if it is not known.
func (t *topology) owner(slot uint16) string {
	if tab := t.current.Load(); tab != nil {
		return tab.at(slot)
	}
	return ""
}

// note notes that a slot has another owner. If we have never heard of that one it
// is time to ask.
func (t *topology) note(slot uint16, addr string) {
	if tab := t.current.Load(); tab != nil && !tab.note(slot, addr) {
		t.distrust()
	}
}

func (t *table) note(slot uint16, addr string) (known bool) {
	n := slices.Index(t.addrs, addr)
	if n > 0 {
		t.owner[slot].Store(uint32(n))
	}
	return n > 0
}

var (
	errNoNodes = errors.New("the cluster has no slots, or its nodes do not answer")
	errNoOwner = errors.New("no node of the cluster owns the slot")
)

// trouble says why a sub has no home.
func (t *topology) trouble() error {
	switch f := t.failure.Load(); {
	case f != nil:
		return explain(f.err)
	case t.current.Load() == nil:
		return errDialing
	}
	return errNoOwner
}

// ask has the topology look for homes.
func (t *topology) ask() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// doubt has the node of a link asked whether it owns what is subscribed there.
func (t *topology) doubt(l *link) {
	t.mu.Lock()
	t.doubted[l] = struct{}{}
	t.mu.Unlock()
	t.ask()
}

// keepDoubting is doubt for when it is time for another round.
func (t *topology) keepDoubting(l *link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.doubted[l] = struct{}{}
}

// distrust has all asked anew: a node did not answer a publisher, or as one that
// does not own the slot.
func (t *topology) distrust() {
	t.mu.Lock()
	t.stale = true
	t.mu.Unlock()
	t.ask()
}

// client returns the client of a node, or nil.
func (t *topology) client(addr string) rueidis.Client {
	if p := t.pipeline(addr); p != nil {
		return *p.client.Load()
	}
	return nil
}

// pipeline returns the way to a node, or nil.
func (t *topology) pipeline(addr string) *pipeline {
	if nodes := t.nodes.Load(); nodes != nil {
		return (*nodes)[addr]
	}
	return nil
}

// meet notes the nodes that the client knows. Links to one that it has dropped
// are doubted: with Sentinel the primary is elsewhere now, and in a cluster others
// know more.
func (t *topology) meet(clients map[string]rueidis.Client) {
	nodes := make(map[string]*pipeline, len(clients))
	for addr, client := range clients {
		p := t.pipeline(addr)
		if p == nil {
			p = &pipeline{engine: t.engine, addr: addr}
		}
		p.client.Store(&client)
		nodes[addr] = p
	}
	before := t.nodes.Swap(&nodes)
	if before == nil {
		return
	}
	for addr := range *before {
		if nodes[addr] != nil {
			continue
		}
		t.engine.mu.RLock()
		l := t.engine.links[addr]
		t.engine.mu.RUnlock()
		if l != nil {
			t.doubt(l)
			t.engine.inspector.suspect(addr)
		}
	}
}

// owns reports whether an address is taken for the owner of slots.
func (t *topology) owns(addr string) bool {
	tab := t.current.Load()
	if tab == nil {
		return false
	}
	n := slices.Index(tab.addrs, addr)
	for slot := range tab.owner {
		if n > 0 && tab.owner[slot].Load() == uint32(n) {
			return true
		}
	}
	return false
}

// troubles says what is wrong with the nodes that are published to.
func (t *topology) troubles() (errs []error) {
	tab := t.current.Load()
	if tab == nil {
		return nil
	}
	for _, addr := range tab.addrs[1:] {
		if p := t.pipeline(addr); p != nil && t.owns(addr) {
			if err := p.trouble(); err != nil {
				errs = append(errs, fmt.Errorf("%s: publishing to %s: %w", t.engine.cfg.Name, addr, err))
			}
		}
	}
	return errs
}

// refreshClient has the client learn of the node that a channel lives on, which
// it does not know yet.
func (t *topology) refreshClient(channel string) {
	t.mu.Lock()
	if t.nudges == nil {
		t.nudges = make(map[string]struct{})
	}
	if len(t.nudges) < maxNudges {
		t.nudges[channel] = struct{}{}
	}
	t.mu.Unlock()
	t.ask()
}

// node returns the way to the owner of a channel's slot.
func (t *topology) node(ctx context.Context, channel string) (*pipeline, string, error) {
	select {
	case <-t.known:
	default:
		t.ask()
		select {
		case <-t.known:
		case <-ctx.Done():
			return nil, "", context.Cause(ctx)
		case <-t.engine.ctx.Done():
			return nil, "", t.engine.errClosed()
		}
	}
	addr := t.owner(t.engine.slot(channel))
	p := t.pipeline(addr)
	if p == nil {
		t.distrust()
		t.refreshClient(channel)
		return nil, "", rueidis.ErrNoSlot
	}
	return p, addr, nil
}

// run answers questions until the engine closes. While somebody has no home it
// asks again and again.
func (t *topology) run() {
	e := t.engine
	timer := time.NewTimer(0)
	defer timer.Stop()
	pause := roundPause
	refresh := time.NewTicker(refreshEvery)
	defer refresh.Stop()
	if !e.cluster || e.cfg.Sharded {
		refresh.Stop() // there the servers tell when something changes
	}
	for {
		select {
		case <-t.kick:
		case <-timer.C:
		case <-refresh.C:
			t.mu.Lock()
			t.stale = true
			t.mu.Unlock()
		case <-e.ctx.Done():
			return
		}
		switch served, sure := t.round(); {
		case !served:
			pause = min(2*pause, lastRetry)
			timer.Reset(pause)
		case !sure: // which is nothing to hurry about, or to hold up others
			pause = roundPause
			timer.Reset(lastRetry)
		default:
			pause = roundPause
			timer.Stop()
		}
		wait := time.NewTimer(roundPause)
		select {
		case <-wait.C:
		case <-e.ctx.Done():
			wait.Stop()
			return
		}
	}
}

// round asks once, and reports whether everybody has a home that answers, and whether
// each home that is doubted has been asked about.
func (t *topology) round() (served, sure bool) {
	e := t.engine
	t.mu.Lock()
	doubted, nudges, stale := t.doubted, t.nudges, t.stale
	t.doubted, t.nudges, t.stale = make(map[*link]struct{}), nil, false
	t.mu.Unlock()
	t.nudge(nudges)

	nodes := e.client.Nodes()
	t.meet(nodes)
	var wg sync.WaitGroup
	var unsure atomic.Bool
	for l := range doubted {
		wg.Go(func() {
			if !t.verify(nodes, l) {
				unsure.Store(true)
				t.keepDoubting(l)
			}
		})
	}
	wg.Wait()
	if homeless := t.homeless(); len(homeless) > 0 || t.current.Load() == nil || stale {
		t.survey(nodes, homeless)
	}
	if homeless := t.homeless(); len(nodes) == 0 && len(homeless) > 0 {
		t.failure.Store(&failure{errNoNodes})
		t.refreshClient(homeless[0].channel) // the slots may have been given to nodes meanwhile
	}
	return len(t.homeless()) == 0, !unsure.Load()
}

// survey asks nodes who owns what. Those that have no home go to the first that
// is named, and learn from it if it is none; what is taken for true of all
// others is what most say.
func (t *topology) survey(nodes map[string]rueidis.Client, homeless []*sub) {
	var heard poll
	answers := t.askNodes(nodes)
	enough := min(len(nodes), askAtOnce)/2 + 1
	var late <-chan time.Time
	for {
		select {
		case tab, ok := <-answers:
			if !ok {
				t.conclude(&heard)
				return
			}
			heard.add(tab)
			for _, s := range homeless {
				home, _, _ := s.state()
				if addr := tab.at(s.slot); addr != "" && (home == nil || home.addr != addr) {
					t.engine.place(s, addr)
				}
			}
			homeless = t.homeless()
			if late == nil {
				late = time.After(surveyPause)
			}
			if t.current.Load() == nil || len(heard.answers) == enough {
				t.conclude(&heard)
			}
		case <-late:
			t.conclude(&heard)
		}
	}
}

// conclude takes over what most of those say that have answered so far.
func (t *topology) conclude(heard *poll) {
	if len(heard.answers) == 0 {
		return
	}
	t.failure.Store(nil)
	down := func(addr string) bool {
		t.engine.mu.RLock()
		l := t.engine.links[addr]
		t.engine.mu.RUnlock()
		return l != nil && l.health() != nil
	}
	doubted := func(addr string) bool {
		p := t.pipeline(addr)
		return p != nil && p.trouble() != nil
	}
	t.learn(heard.result(t.current.Load(), down, doubted))
}

// learn takes over an answer, but for what our own subscriptions know better. A
// home that one is given meanwhile is noted here or by who gives it.
func (t *topology) learn(tab *table) {
	t.current.Store(tab)
	for _, s := range t.engine.all() {
		if home, _, _ := s.state(); home != nil && home.health() == nil {
			tab.note(s.slot, home.addr)
		}
	}
	t.once.Do(func() { close(t.known) })
}

// homeless returns the subs that have no home, or one that is down.
func (t *topology) homeless() (list []*sub) {
	down := make(map[*link]bool)
	for _, s := range t.engine.all() {
		home, on, _ := s.state()
		if on {
			continue
		}
		if home == nil {
			list = append(list, s)
			continue
		}
		isDown, asked := down[home]
		if !asked {
			isDown = home.health() != nil
			down[home] = isDown
		}
		if isDown {
			list = append(list, s)
		}
	}
	return list
}

// verify asks a link's own node what it owns, and moves what it does not. Of a node
// that the client does not know others are asked; false means that none of them has
// answered. (If it is the link's own that does not answer the link finds out.)
func (t *topology) verify(nodes map[string]rueidis.Client, l *link) (sure bool) {
	node := nodes[l.addr]
	var tab *table
	if node == nil {
		tab = t.hearsay(nodes, l.addr)
	} else {
		var err error
		switch tab, err = t.askNode(l.addr, node); {
		case errors.Is(err, errReplica):
			tab = &table{addrs: []string{""}} // it owns nothing
		case errors.Is(err, errNoSlots):
			tab = t.hearsay(nodes, l.addr)
		}
	}
	if tab == nil { // nobody knows better than the link
		return node != nil || l.unused()
	}
	l.mu.Lock()
	var subs []*sub
	for _, st := range l.seats {
		if st.sub != nil && tab.at(st.slot) != l.addr {
			subs = append(subs, st.sub)
		}
	}
	l.mu.Unlock()
	waits := false
	for _, s := range subs {
		home, on, _ := s.state()
		switch {
		case home != l:
		case on && node != nil && l.suspected() < farewell:
			waits = true
		default:
			t.engine.place(s, tab.at(s.slot))
		}
	}
	if waits {
		t.doubt(l) // and asked again in the next round
	} else {
		l.trust()
	}
	return true
}

// hearsay asks nodes what another one owns: it owns what any of them gives to it,
// since the client may know less than they. It is nil if nobody answers.
func (t *topology) hearsay(nodes map[string]rueidis.Client, addr string) (tab *table) {
	for answer := range t.askNodes(nodes) {
		if tab == nil {
			tab = answer
			continue
		}
		index := slices.Index(answer.addrs, addr)
		if index < 0 {
			continue
		}
		if !slices.Contains(tab.addrs, addr) {
			tab.addrs = append(tab.addrs, addr)
		}
		for slot := range answer.owner {
			if answer.owner[slot].Load() == uint32(index) {
				tab.note(uint16(slot), addr)
			}
		}
	}
	return tab
}

// farewell is how long a node that says it has lost slots has to say so on the
// link as well. What comes there until then is the rest of what it took, and
// once it has said so we know that we have got all.
const farewell = 200 * time.Millisecond

// askNodes asks some nodes at once and yields their answers as they come.
func (t *topology) askNodes(nodes map[string]rueidis.Client) <-chan *table {
	answers := make(chan *table, askAtOnce)
	var wg sync.WaitGroup
	n := 0
	for addr, node := range nodes { // in random order
		if n++; n > askAtOnce {
			break
		}
		wg.Go(func() {
			tab, err := t.askNode(addr, node)
			if err != nil {
				t.failure.Store(&failure{fmt.Errorf("%s: %w", addr, err)})
				return
			}
			answers <- tab
		})
	}
	go func() { // ends when the questions do, before round returns
		wg.Wait()
		close(answers)
	}()
	return answers
}

// askNode asks one node who owns the slots.
func (t *topology) askNode(addr string, node rueidis.Client) (*table, error) {
	ctx, cancel := context.WithTimeout(t.engine.ctx, askTimeout)
	defer cancel()
	if !t.engine.cluster {
		return askRole(ctx, addr, node)
	}
	result := node.Do(ctx, node.B().ClusterSlots().Build())
	if err := resultError(result); err != nil {
		return nil, err
	}
	reply, err := result.ToArray()
	if err != nil {
		return nil, err
	}
	tab, err := parseSlots(addr, reply)
	if err == nil && len(tab.addrs) == 1 {
		err = errNoSlots
	}
	return tab, err
}

// askRole is askNode without a cluster: the one primary owns everything. A
// server that does not let us ask is taken for it.
func askRole(ctx context.Context, addr string, node rueidis.Client) (*table, error) {
	if replica, err := isReplica(ctx, node); err != nil {
		return nil, err
	} else if replica {
		return nil, errReplica
	}
	tab := &table{addrs: []string{"", addr}}
	for i := range tab.owner {
		tab.owner[i].Store(1)
	}
	return tab, nil
}

// parseSlots reads the reply of CLUSTER SLOTS: first slot, last slot, and the
// nodes, the primary first, each with host and port. A node that does not know
// its own host leaves it empty.
func parseSlots(from string, reply []rueidis.RedisMessage) (*table, error) {
	tab := &table{addrs: []string{""}}
	index := make(map[string]uint32)
	for _, r := range reply {
		row, err := r.ToArray()
		if err != nil || len(row) < 3 {
			return nil, fmt.Errorf("CLUSTER SLOTS of %s: a row of %d", from, len(row))
		}
		first, err1 := row[0].AsInt64()
		last, err2 := row[1].AsInt64()
		primary, err3 := row[2].ToArray()
		if err := errors.Join(err1, err2, err3); err != nil || len(primary) < 2 || first < 0 || last >= slots {
			return nil, fmt.Errorf("CLUSTER SLOTS of %s: slots %d to %d: %w", from, first, last, err)
		}
		host, _ := primary[0].ToString()
		port, _ := primary[1].AsInt64()
		switch host {
		case "":
			host, _, _ = net.SplitHostPort(from)
		case "?":
			continue
		}
		addr := net.JoinHostPort(host, strconv.FormatInt(port, 10))
		n, ok := index[addr]
		if !ok {
			n = uint32(len(tab.addrs))
			index[addr] = n
			tab.addrs = append(tab.addrs, addr)
		}
		for slot := first; slot <= last; slot++ {
			tab.owner[slot].Store(n)
		}
	}
	return tab, nil
}

// maxNudges bounds the channels that one round asks the client for.
const maxNudges = 8

// nudge asks for something in the slots of channels. The client is redirected
// to their owner, or finds that the owner it knows is gone, and then looks who
// there is. That may take long where a node is silent: nobody waits for it.
func (t *topology) nudge(channels map[string]struct{}) {
	e := t.engine
	if len(channels) == 0 || !t.nudging.CompareAndSwap(false, true) {
		return
	}
	e.wg.Go(func() {
		var wg sync.WaitGroup
		for channel := range channels {
			wg.Go(func() { t.nudgeFor(channel) })
		}
		wg.Wait()
		t.nudging.Store(false)
		t.ask() // there may be nodes to meet
	})
}

func (t *topology) nudgeFor(channel string) {
	e := t.engine
	ctx, cancel := context.WithTimeout(e.ctx, askTimeout)
	defer cancel()
	// A replica would take SPUBLISH for its primary's slots, and not say that
	// it is none.
	err := e.client.Do(ctx, e.client.B().Exists().Key(channel).Build()).Error()
	if _, refused := rueidis.IsRedisErr(err); refused && e.cfg.Sharded {
		e.client.Do(ctx, e.client.B().Spublish().Channel(wire.SameSlot(channel, ":nudge:"+e.id)).Message("").Build())
	}
}
