package partition

import (
	"slices"
	"strings"
)

// Pick returns the name that a room belongs to: the one with the highest score.
// When names change, the rooms of names that were removed and a new name's
// share of all rooms get another name, and no others do. The order of names
// does not matter. Pick returns "" if there are none.
//
// The algorithm is fixed, so that it can be written in other languages, with
// unsigned numbers of 64 bits that wrap around:
//
//	h(s):  h = 14695981039346656037           FNV-1a
//	       for each byte c of s: h = (h xor c) * 1099511628211
//	mix(x): x = (x xor x>>30) * 0xbf58476d1ce4e5b9
//	        x = (x xor x>>27) * 0x94d049bb133111eb
//	        x = x xor x>>31
//	score(name, room) = mix(mix(h(name)) xor h(room))
//
// Of names with the same score the one that sorts first wins. Some vectors:
//
//	h("lobby") = 0x1ccae3b6ef72f533
//	score("a", "lobby") = 0xa5611d70689d51cc
//	score("b", "lobby") = 0x99653d4c8db607f5, so Pick({"a", "b"}, "lobby") = "a"
//
// The test of this package has more.
func Pick(names []string, room string) string {
	best, top := "", uint64(0)
	r := fnv(room)
	for _, name := range names {
		s := score(mix(fnv(name)), r)
		if best == "" || s > top || s == top && name < best {
			best, top = name, s
		}
	}
	return best
}

// Rank returns the names in the order in which a room prefers them: Pick
// returns the first, and would return the second if the first were removed.
// Rank does not modify names.
func Rank(names []string, room string) []string {
	r := fnv(room)
	ranked := slices.Clone(names)
	slices.SortFunc(ranked, func(a, b string) int {
		switch s, t := score(mix(fnv(a)), r), score(mix(fnv(b)), r); {
		case s > t:
			return -1
		case s < t:
			return 1
		}
		return strings.Compare(a, b)
	})
	return ranked
}

func score(mixedName, room uint64) uint64 { return mix(mixedName ^ room) }

func fnv(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// mix is the last step of splitmix64.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// A channel is what the name of one says.
type channel struct {
	key  string // what is hashed: the room's name
	wide bool   // it is on several partitions
}

// parse reads the name of a channel, prefix:kind:{name}. A name of another form
// is hashed as a whole.
func parse(name string) channel {
	open := strings.IndexByte(name, '{')
	if open < 2 || name[len(name)-1] != '}' || name[open-1] != ':' {
		return channel{key: name}
	}
	key := name[open+1 : len(name)-1]
	if strings.IndexByte(key, '%') >= 0 {
		key = unescaper.Replace(key)
	}
	kind := name[:open-1]
	kind = kind[strings.LastIndexByte(kind, ':')+1:]
	return channel{key: key, wide: kind == "i" || kind == "u" || kind == "a"}
}

var unescaper = strings.NewReplacer("%25", "%", "%7B", "{", "%7D", "}")
