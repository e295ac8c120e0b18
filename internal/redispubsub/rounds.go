package redispubsub

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

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
