package performer

import (
	"context"

	"github.com/fanoutgo/fanout/internal/control"
	"github.com/fanoutgo/fanout/internal/item"
	"github.com/fanoutgo/fanout/internal/wire"
)

// Chosen are the members of this hub that a question selects: those of rooms,
// or those with some numbers, without those that it leaves out.
type chosen struct {
	env      *Env
	everyone bool     // the numbers are those of all members
	numbers  []uint64 // of members
	rooms    []Room
	except   map[uint64]bool
	without  []string // channels of rooms whose members are left out
}

func (p *Performer) choose(q *control.Question) *chosen {
	env := &p.env
	c := &chosen{env: env}
	for _, n := range p.numbersIn(q.Except) {
		if c.except == nil {
			c.except = make(map[uint64]bool)
		}
		c.except[n] = true
	}
	for _, room := range q.ExceptRooms {
		c.without = append(c.without, env.Names.Room(room))
	}
	switch q.Scope {
	case control.ScopeEveryone:
		c.everyone = true
	case control.ScopeMembers:
		c.numbers = p.numbersIn(q.Names)
	case control.ScopeUsers:
		for _, user := range q.Names {
			c.numbers = append(c.numbers, env.NumbersOf(user)...)
		}
	default:
		for _, name := range q.Names {
			if r := env.Room(env.Names.Room(name)); r != nil {
				c.rooms = append(c.rooms, r)
			}
		}
	}
	return c
}

// numbersIn returns the numbers of those members in a list of IDs that are
// this hub's.
func (p *Performer) numbersIn(ids []string) []uint64 {
	if len(ids) == 0 {
		return nil
	}
	m := wire.Message{To: ids}
	return item.MemberNumbers(p.env.ID, m.View().To)
}

// count returns the number of members. It looks at none of them if all members
// of the hub, or of one room, are chosen.
func (c *chosen) count(ctx context.Context) (uint64, error) {
	if c.except == nil && c.without == nil {
		switch {
		case c.everyone:
			return c.env.Describe().Count, nil
		case len(c.rooms) == 1:
			return uint64(c.rooms[0].Count()), nil
		}
	}
	return c.each(ctx, func(Member) error { return nil })
}

// each calls f for each of the members until f returns an error, and returns
// how many members it was called for. Members that come or go meanwhile may or
// may not be among them.
func (c *chosen) each(ctx context.Context, f func(Member) error) (count uint64, err error) {
	for i, r := range c.rooms {
		err := r.Walk(ctx, func(m Member) error {
			if c.leavesOut(m, c.rooms[:i]) {
				return nil
			}
			count++
			return f(m)
		})
		if err != nil {
			return count, err
		}
	}
	numbers := c.numbers
	if c.everyone {
		numbers = c.env.Numbers()
	}
	for _, n := range numbers {
		m := c.env.Member(n)
		if m == nil || c.leavesOut(m, nil) {
			continue
		}
		count++
		if err := f(m); err != nil {
			return count, err
		}
	}
	return count, nil
}

// leavesOut reports whether a member is excepted, has ended, or is in an
// earlier one of the rooms.
func (c *chosen) leavesOut(m Member, earlier []Room) bool {
	if m.Ended() || c.except[m.Number()] {
		return true
	}
	for _, channel := range c.without {
		if m.IsIn(channel) {
			return true
		}
	}
	for _, r := range earlier {
		if m.IsIn(r.Channel()) {
			return true
		}
	}
	return false
}
