package redispubsub

import "slices"

// A poll collects what nodes say about who owns the slots. Some know less than
// others: a node that was cut off or paused still names the owners of that
// time. So for each slot the majority of the answers decides. Nodes that know
// no owner have no vote.
type poll struct {
	answers []*table
}

func (p *poll) add(tab *table) { p.answers = append(p.answers, tab) }

// The weights of a vote and of the reasons to prefer one owner to another. A
// vote outweighs the lesser reasons together; a working link outweighs all
// votes.
const (
	worthBefore  = 1 // it was the owner before
	worthHealthy = 2 // publishing to it works
	worthVote    = 4
)

// result returns the owners that most of the answers name. An owner for which
// down is true gives way to any other that is named for the slot. Between
// owners with the same number of votes, one that is not in trouble wins, and
// then the owner in before, which may be nil.
func (p *poll) result(before *table, down, troubled func(addr string) bool) *table {
	tab := newTable()
	index := map[string]uint32{"": 0}
	rank := make(map[string]int) // of owners, without the votes
	for _, a := range p.answers {
		for _, addr := range a.addrs[1:] {
			if _, ok := index[addr]; ok {
				continue
			}
			index[addr] = tab.add(addr)
			if !troubled(addr) {
				rank[addr] += worthHealthy
			}
			if !down(addr) {
				rank[addr] += worthVote * (len(p.answers) + 1)
			}
		}
		for owner, replicas := range a.replicas {
			for _, addr := range replicas {
				tab.addReplica(owner, addr) // one that is none is found out when it is used
			}
		}
	}
	said := p.answers
	if before != nil {
		said = append(slices.Clone(said), before)
	}
	owners := make([]*[slots]uint32, len(said))
	var differs [slots]bool // from the slot before: neighbours mostly have the same owner
	for i, a := range said {
		owners[i] = a.owners()
		for slot := 1; slot < slots; slot++ {
			if owners[i][slot] != owners[i][slot-1] {
				differs[slot] = true
			}
		}
	}
	candidates := make([]string, len(said))
	var owner uint32
	for slot := range tab.made {
		if slot == 0 || differs[slot] {
			for i, a := range said {
				candidates[i] = a.addrs[owners[i][slot]]
			}
			was := ""
			if before != nil {
				was = candidates[len(p.answers)]
			}
			owner = index[elect(candidates[:len(p.answers)], rank, was)]
		}
		tab.made[slot] = owner
	}
	return tab
}

// elect returns the candidate with the most votes and the highest rank. Votes
// for "" do not count.
func elect(votes []string, rank map[string]int, was string) (elected string) {
	best := -1
	for i, addr := range votes {
		if addr == "" || i > 0 && addr == votes[i-1] {
			continue
		}
		score := rank[addr]
		for _, other := range votes {
			if other == addr {
				score += worthVote
			}
		}
		if addr == was {
			score += worthBefore
		}
		if score > best {
			best, elected = score, addr
		}
	}
	return elected
}
