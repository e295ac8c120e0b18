package deploytest

// check compares what was received with what was published.
func (d *Deploy) check(clients []*listener) {
	for _, l := range d.members {
		if len(l.gaps) > 0 && !d.mayMiss(l.room) {
			d.T.Errorf("%s: a member that joined at %d was told of gaps: %v", l.room, l.joined, l.gaps)
		}
		d.once(l.room, l.got)
	}
	if d.Early == nil {
		d.checkClients(clients)
	}
	members := d.members
	if d.Early != nil {
		members = d.sinceFlip()
	}
	for _, l := range members {
		for _, other := range members {
			if other.room != l.room {
				continue
			}
			if l.room == "kept" || !d.Lossy && !d.Unordered {
				d.sameOrder(l.room, l.got, other.got)
			}
			if l.room == "kept" {
				d.nothingBetween(l, other)
			}
		}
	}
	f := d.Figures()
	d.T.Logf("%d messages, %d members, %d gaps", f.Messages, len(d.members), f.Gaps)
}

// Figures are sums over both rooms of a Deploy: messages that were published,
// and gaps that members were told of.
type Figures struct{ Messages, Gaps int }

// Figures returns the figures. It is called after Run.
func (d *Deploy) Figures() (f Figures) {
	for _, room := range rooms {
		f.Messages += len(d.sent[room])
	}
	for _, l := range d.members {
		f.Gaps += len(l.gaps)
	}
	return f
}

// sinceFlip returns the members of the room with a history, with what was
// published after the flip.
func (d *Deploy) sinceFlip() (list []*listener) {
	late := make(map[string]bool)
	for _, m := range d.sent["kept"][d.flipped:] {
		late[m.text] = true
	}
	for _, l := range d.members {
		if l.room != "kept" {
			continue
		}
		one := &listener{room: l.room, after: make(map[int]bool)}
		for i, text := range l.got {
			if l.after[i] {
				one.after[len(one.got)] = true
			}
			if late[text] {
				one.got = append(one.got, text)
			}
		}
		list = append(list, one)
	}
	return list
}

// mayMiss reports whether members of a room may be told of gaps.
func (d *Deploy) mayMiss(room string) bool {
	if room == "plain" {
		return d.Lossy
	}
	return d.Early != nil
}

// checkClients checks what the client that moved from hub to hub received.
func (d *Deploy) checkClients(clients []*listener) {
	var all []string
	for _, c := range clients {
		all = append(all, c.got...)
	}
	d.once("kept, over all hubs", all)
	d.complete("kept, over all hubs", "kept", clients[0].joined, all)
	for _, l := range d.members {
		if l.room == "kept" {
			d.sameOrder(l.room, l.got, all)
		}
	}
}

func (d *Deploy) once(what string, got []string) {
	seen := make(map[string]bool)
	for _, text := range got {
		if seen[text] {
			d.T.Errorf("%s: %q came twice", what, text)
		}
		seen[text] = true
	}
}

// complete checks that every message that was published after a moment arrived.
func (d *Deploy) complete(what, room string, since int, got []string) {
	has := make(map[string]bool)
	for _, text := range got {
		has[text] = true
	}
	missing := 0
	for _, m := range d.sent[room][since:] {
		if !has[m.text] {
			if missing++; missing < 5 {
				d.T.Errorf("%s: %q did not come", what, m.text)
			}
		}
	}
}

// sameOrder checks that messages that both received are in the same order.
func (d *Deploy) sameOrder(what string, a, b []string) {
	place := make(map[string]int)
	for i, text := range b {
		place[text] = i + 1
	}
	last, before := 0, ""
	for _, text := range a {
		if p := place[text]; p > 0 {
			if p < last {
				d.T.Errorf("%s: %q came after %q, and for another member before it", what, text, before)
				return
			}
			last, before = p, text
		}
	}
}

// nothingBetween checks that between two messages that both members received,
// the first received all that the other one did, or was told of a gap there.
func (d *Deploy) nothingBetween(l, other *listener) {
	place, has := make(map[string]int), make(map[string]bool)
	for i, text := range other.got {
		place[text] = i + 1
	}
	for _, text := range l.got {
		has[text] = true
	}
	last := 0
	for i, text := range l.got {
		p := place[text]
		if last > 0 && p > last && !l.after[i] {
			for _, missed := range other.got[last : p-1] {
				if !has[missed] {
					d.T.Errorf("%s: %q did not come before %q, and there was no gap", l.room, missed, text)
					return
				}
			}
		}
		last = p
	}
}
