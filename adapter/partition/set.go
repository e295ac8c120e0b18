package partition

import "slices"

// A set is some partitions, of which each room belongs to one. It never
// changes.
type set struct {
	names  []string // sorted
	hashes []uint64 // mixed, of the names
}

func newSet(names []string) *set {
	s := &set{names: slices.Compact(slices.Sorted(slices.Values(names)))}
	for _, name := range s.names {
		s.hashes = append(s.hashes, mix(fnv(name)))
	}
	return s
}

// pick is [Pick].
func (s *set) pick(key string) string {
	best, top, r := 0, uint64(0), fnv(key)
	for i, h := range s.hashes {
		if sc := score(h, r); i == 0 || sc > top {
			best, top = i, sc
		}
	}
	return s.names[best]
}

// homes returns the names of the partitions that have a channel.
func (s *set) homes(c channel, copies int) []string {
	if !c.wide {
		return []string{s.pick(c.key)}
	}
	return Rank(s.names, c.key)[:min(copies, len(s.names))]
}
