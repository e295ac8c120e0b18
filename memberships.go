package fanout

import "slices"

// memberships are the rooms of a member by channel. Most members are in a few
// rooms, so it is a slice until there are many.
type memberships struct {
	few  []*membership
	many map[string]*membership
}

const fewRooms = 16

func (s *memberships) get(channel string) *membership {
	if s.many != nil {
		return s.many[channel]
	}
	for _, ms := range s.few {
		if ms.room.channel == channel {
			return ms
		}
	}
	return nil
}

func (s *memberships) put(ms *membership) {
	if s.many == nil && len(s.few) < fewRooms {
		s.few = append(s.few, ms)
		return
	}
	if s.many == nil {
		s.many = make(map[string]*membership, 2*fewRooms)
		for _, old := range s.few {
			s.many[old.room.channel] = old
		}
		s.few = nil
	}
	s.many[ms.room.channel] = ms
}

func (s *memberships) delete(channel string) {
	if s.many != nil {
		delete(s.many, channel)
		return
	}
	s.few = slices.DeleteFunc(s.few, func(ms *membership) bool { return ms.room.channel == channel })
}

// all returns a copy of the list.
func (s *memberships) all() []*membership {
	list := slices.Clone(s.few)
	for _, ms := range s.many {
		list = append(list, ms)
	}
	return list
}
