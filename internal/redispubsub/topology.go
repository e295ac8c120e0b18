package redispubsub

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanoutgo/fanout/internal/backoff"
	"github.com/redis/rueidis"
)

const (
	// roundPause is the least time between two rounds of questions.
	roundPause = 30 * time.Millisecond
	// refreshEvery is how often the nodes are asked who owns which slots, where
	// nodes do not redirect.
	refreshEvery = 2 * time.Second
	// surveyPause is how long the first answers wait for the majority.
	surveyPause = 50 * time.Millisecond
	// moveGrace is how long a node that says it has lost slots may take to end
	// their subscriptions on the link. Until then the link receives the rest of
	// what the node accepted, and once the node has ended a subscription we
	// have received everything.
	moveGrace = 200 * time.Millisecond
)

var (
	errNoNodes = errors.New("the cluster has no slots, or its nodes do not answer")
	errNoOwner = errors.New("no node of the cluster owns the slot")
)

// A topology finds homes for subs that have none, or whose home does not
// answer. It asks the nodes only when there is a reason. If a node says that it
// does not own a slot, that is final; the owner that it names instead may be
// wrong, and then corrects that with MOVED.
//
// It has one goroutine, run. The other methods may be called concurrently and
// do not wait. The table is in table.go, the questions to nodes are in
// survey.go, and poll.go combines their answers.
type topology struct {
	engine  *Engine
	kick    chan struct{}
	current atomic.Pointer[table]
	latest  atomic.Pointer[table] // the latest answer of a node
	known   chan struct{}         // closed when there is a first table
	once    sync.Once
	nodes   atomic.Pointer[map[string]*pipeline] // as the client knows them
	failure atomic.Pointer[failure]              // why no node answered in the latest round; nil: one did
	poking  atomic.Bool                          // the client is being asked for the homes of channels

	mu     sync.Mutex          // guards all below
	verify map[*link]struct{}  // links whose nodes the next round asks what they own
	lost   map[string]struct{} // channels whose home the client does not know
	stale  bool                // the table has turned out to be wrong
}

func (t *topology) init(e *Engine) {
	t.engine = e
	t.kick = make(chan struct{}, 1)
	t.known = make(chan struct{})
	t.verify = make(map[*link]struct{})
}

// owner returns the address of a slot's owner, or "" if it is not known.
func (t *topology) owner(slot uint16) string {
	if tab := t.current.Load(); tab != nil {
		return tab.at(slot)
	}
	return ""
}

// replicas returns the addresses of the replicas of a primary. Of one that has
// just taken over, only the latest answer may know them.
func (t *topology) replicas(primary string) []string {
	for _, tab := range []*table{t.current.Load(), t.latest.Load()} {
		if tab != nil && len(tab.replicas[primary]) > 0 {
			return tab.replicas[primary]
		}
	}
	return nil
}

// note notes that a slot has another owner. If that owner is unknown, note asks
// the nodes.
func (t *topology) note(slot uint16, addr string) {
	if tab := t.current.Load(); tab != nil && !tab.note(slot, addr) {
		t.refreshTable()
	}
}

// trouble returns why a sub has no home.
func (t *topology) trouble() error {
	switch f := t.failure.Load(); {
	case f != nil:
		return explain(f.err)
	case t.current.Load() == nil:
		return errDialing
	}
	return errNoOwner
}

// ask begins a round of questions.
func (t *topology) ask() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// verifyLater makes the next round, which begins soon, ask the node of a link
// whether it owns the slots that are subscribed there.
func (t *topology) verifyLater(l *link) {
	t.verifyNextRound(l)
	t.ask()
}

// verifyNextRound is verifyLater for when it is time for another round.
func (t *topology) verifyNextRound(l *link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.verify[l] = struct{}{}
}

// refreshTable makes the next round ask all nodes: a node did not answer a
// publisher, or answered as one that does not own the slot.
func (t *topology) refreshTable() {
	t.markStale()
	t.ask()
}

func (t *topology) markStale() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stale = true
}

// refreshClient makes the client learn of the node that is the home of a
// channel, which the client does not know yet.
func (t *topology) refreshClient(channel string) {
	t.mu.Lock()
	if t.lost == nil {
		t.lost = make(map[string]struct{})
	}
	if len(t.lost) < maxPokes {
		t.lost[channel] = struct{}{}
	}
	t.mu.Unlock()
	t.ask()
}

// run answers questions until the engine closes. While a sub has no home it
// asks again and again.
func (t *topology) run() {
	e := t.engine
	timer := time.NewTimer(0)
	defer timer.Stop()
	var refresh <-chan time.Time
	if every := t.refreshEvery(); every > 0 {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		refresh = ticker.C
	}
	pause := backoff.Backoff{First: 2 * roundPause}
	for {
		select {
		case <-t.kick:
		case <-timer.C:
		case <-refresh:
			t.markStale()
		case <-e.ctx.Done():
			return
		}
		switch served, sure := t.round(); {
		case !served:
			timer.Reset(pause.Next())
		case !sure: // verifying is not urgent, and must not delay others
			pause.Reset()
			timer.Reset(backoff.Max)
		default:
			pause.Reset()
			timer.Stop()
		}
		if !backoff.Sleep(e.ctx, roundPause) {
			return
		}
	}
}

// refreshEvery returns how often the nodes are asked without a reason; 0:
// never, since nodes that redirect say when the owner of a slot changes.
func (t *topology) refreshEvery() time.Duration {
	switch e := t.engine; {
	case !e.mode.redirects():
		return refreshEvery
	case e.spreads():
		return refreshReplicas * e.cfg.ProbeInterval
	}
	return 0
}

// round asks once. It reports whether each sub has a home that answers, and
// whether each link that had to be verified has been.
func (t *topology) round() (served, sure bool) {
	e := t.engine
	t.mu.Lock()
	verify, lost, stale := t.verify, t.lost, t.stale
	t.verify, t.lost, t.stale = make(map[*link]struct{}), nil, false
	t.mu.Unlock()
	t.pokeClient(lost)

	nodes := e.client.Nodes()
	t.meet(nodes)
	var wg sync.WaitGroup
	var unsure atomic.Bool
	for l := range verify {
		wg.Go(func() {
			if !t.verifyLink(nodes, l) {
				unsure.Store(true)
				t.verifyNextRound(l)
			}
		})
	}
	wg.Wait()
	if homeless := t.homeless(); len(homeless) > 0 || t.current.Load() == nil || stale {
		t.survey(nodes, homeless)
	}
	if homeless := t.homeless(); len(nodes) == 0 && len(homeless) > 0 {
		t.failure.Store(&failure{errNoNodes})
		t.refreshClient(homeless[0].channel) // the slots may have new owners by now
	}
	return len(t.homeless()) == 0, !unsure.Load()
}

// survey asks nodes who owns the slots. A sub without a home is placed at the
// first owner that is named, which corrects that if it is wrong. For all others
// the majority of the answers counts.
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
			t.latest.Store(tab)
			for _, s := range homeless {
				home, _, _ := s.state()
				if owner := tab.at(s.slot); owner != "" && (home == nil || home.linkKey != t.engine.readers.home(s, owner)) {
					t.engine.place(s, owner)
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

// conclude takes over what most of the answers so far say, except for slots of
// which our own subscriptions know more. A home that a sub gets meanwhile is
// noted here or by place.
func (t *topology) conclude(heard *poll) {
	if len(heard.answers) == 0 {
		return
	}
	t.failure.Store(nil)
	down := func(addr string) bool {
		l := t.engine.link(addr)
		return l != nil && l.health() != nil
	}
	troubled := func(addr string) bool {
		p := t.pipeline(addr)
		return p != nil && p.trouble() != nil
	}
	tab := heard.result(t.current.Load(), down, troubled)
	t.current.Store(tab)
	for _, s := range t.engine.all() {
		if home, _, _ := s.state(); home != nil && home.primary == "" && home.health() == nil {
			tab.note(s.slot, home.addr)
		}
	}
	t.once.Do(func() { close(t.known) })
	if t.engine.spreads() {
		t.engine.readers.rebalance(tab)
	}
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

// verifyLink asks which slots a link's node owns, and moves the subs whose
// slots it does not own. It reports false if the client does not know the node
// and no other node has answered. (If the link's own node does not answer, the
// link itself notices that.)
func (t *topology) verifyLink(nodes map[string]rueidis.Client, l *link) (sure bool) {
	known := nodes[l.addr] != nil
	tab := t.askOwn(nodes, l.addr)
	if tab == nil { // no node contradicts the link
		return known || l.unused()
	}
	waits := false
	for _, s := range l.subs() {
		if tab.at(s.slot) == l.owner() {
			continue
		}
		home, on, _ := s.state()
		switch {
		case home != l:
		case on && known && l.lostSlotsFor() < moveGrace:
			waits = true
		default:
			t.engine.place(s, tab.at(s.slot))
		}
	}
	if waits {
		t.verifyLater(l)
	} else {
		l.lostNoSlots()
	}
	return true
}
