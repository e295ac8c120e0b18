package fanout

import "slices"

// memberships are the rooms of a member by channel. Most members are in one room,
// many in a few, so there is a map only when there are many.
type memberships struct {
	one  *membership
	more *moreRooms // nil until there are two
}

type moreRooms struct {
	few  []*membership
	many map[string]*membership // instead of few
}

const fewRooms = 16

func (s *memberships) get(channel string) *membership {
	if s.one != nil && s.one.room.channel == channel {
		return s.one
	}
	if s.more == nil {
		return nil
	}
	if s.more.many != nil {
		return s.more.many[channel]
	}
	for _, ms := range s.more.few {
		if ms.room.channel == channel {
			return ms
		}
	}
	return nil
}

func (s *memberships) put(ms *membership) {
	if s.one == nil {
		s.one = ms
		return
	}
	if s.more == nil {
		s.more = new(moreRooms)
	}
	more := s.more
	if more.many == nil && len(more.few) < fewRooms {
		more.few = append(more.few, ms)
		return
	}
	if more.many == nil {
		more.many = make(map[string]*membership, 2*fewRooms)
		for _, old := range more.few {
			more.many[old.room.channel] = old
		}
		more.few = nil
	}
	more.many[ms.room.channel] = ms
}

func (s *memberships) delete(channel string) {
	switch {
	case s.one != nil && s.one.room.channel == channel:
		s.one = nil
	case s.more == nil:
	case s.more.many != nil:
		delete(s.more.many, channel)
	default:
		s.more.few = slices.DeleteFunc(s.more.few, func(ms *membership) bool { return ms.room.channel == channel })
	}
}

// all returns a copy of the list.
func (s *memberships) all() []*membership { return slices.Collect(s.each) }

// each calls yield for each membership, while it returns true.
func (s *memberships) each(yield func(*membership) bool) {
	if s.one != nil && !yield(s.one) || s.more == nil {
		return
	}
	for _, ms := range s.more.few {
		if !yield(ms) {
			return
		}
	}
	for _, ms := range s.more.many {
		if !yield(ms) {
			return
		}
	}
}
