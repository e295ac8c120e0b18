package redispubsub

// A poll gathers what nodes say about who owns the slots. Some know less than
// others: one that was cut off or paused goes on to name the owners of that
// time. So the majority of those that answer decides, for each slot. Nodes that
// know no owner have no vote.
type poll struct {
	answers []*table
}

func (p *poll) add(tab *table) { p.answers = append(p.answers, tab) }

// result returns what most of the answers say. An owner for which down is true
// gives way to any that is named beside it. Where there are as many voices for
// one as for another, one that is not doubted wins, and then the one that
// is named in before, which may be nil.
func (p *poll) result(before *table, down, doubted func(addr string) bool) *table {
	tab := &table{addrs: []string{""}}
	index := map[string]uint32{"": 0}
	rank := make(map[string]int) // what tells owners apart that have as many voices
	for _, a := range p.answers {
		for _, addr := range a.addrs[1:] {
			if _, ok := index[addr]; ok {
				continue
			}
			index[addr] = uint32(len(tab.addrs))
			tab.addrs = append(tab.addrs, addr)
			if !doubted(addr) {
				rank[addr] += 2
			}
			if !down(addr) {
				rank[addr] += 4 * (len(p.answers) + 1)
			}
		}
	}
	candidates := make([]string, len(p.answers))
	for slot := range tab.owner {
		for i, a := range p.answers {
			candidates[i] = a.at(uint16(slot))
		}
		was := ""
		if before != nil {
			was = before.at(uint16(slot))
		}
		tab.owner[slot].Store(index[elect(candidates, rank, was)])
	}
	return tab
}

// elect returns the candidate with the most voices, which count four each, and
// the highest rank; "" is none.
func elect(voices []string, rank map[string]int, was string) (elected string) {
	best := -1
	for i, addr := range voices {
		if addr == "" || i > 0 && addr == voices[i-1] {
			continue
		}
		score := rank[addr]
		for _, other := range voices {
			if other == addr {
				score += 4
			}
		}
		if addr == was {
			score++
		}
		if score > best {
			best, elected = score, addr
		}
	}
	return elected
}
