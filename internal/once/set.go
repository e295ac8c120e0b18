// Package once remembers which messages have been seen, compactly.
//
// A message is identified by its publisher and a number. A publisher counts up,
// so the numbers that arrive are runs with some holes, and some numbers that
// arrive late. A [Set] keeps them in blocks: a block is a run of words of 64
// numbers that have all been seen, followed by one word as a bitmap.
//
//	block: word 3, full 2            bits of word 5
//	       192 ......... 319         320 321  _  323 ...
//
// So 100,000 numbers without a hole take one block in the end, in whatever
// order they arrive. A number that is more than 64 away from all others takes
// one block too.
//
// Each block has the time at which something was last added to it, and Forget
// drops the blocks that were last added to before a time.
package once

import (
	"math/bits"
	"slices"
	"sort"
)

// A Set is a set of messages. The zero value is empty. It is not safe for
// concurrent use.
type Set struct {
	publishers map[uint64]*numbers
	last       *numbers // the numbers that something was last added to
	blocks     int
}

// numbers are what is known of one publisher, in the order of their words.
// Blocks do not overlap: each begins after the bitmap word of the one before.
type numbers struct {
	publisher uint64
	blocks    []block
}

// A block says that all numbers of some words have been seen, and some numbers
// of the word after those.
type block struct {
	word uint64 // the first; it holds the numbers from 64*word on
	bits uint64 // of the word that follows the full ones
	full uint32 // number of words
	at   uint32 // when the block was last added to
}

// BlockSize is about the size of a block in memory, in bytes.
const BlockSize = 24

func (b *block) end() uint64 { return b.word + uint64(b.full) }

// Len returns the number of blocks.
func (s *Set) Len() int { return s.blocks }

// Add adds a message, and reports whether it is new. The time now is the
// caller's, in any unit; it does not go back.
func (s *Set) Add(publisher, number uint64, now uint32) bool {
	n := s.of(publisher)
	before := len(n.blocks)
	added := n.add(number, now)
	s.blocks += len(n.blocks) - before
	return added
}

func (s *Set) of(publisher uint64) *numbers {
	if s.last != nil && s.last.publisher == publisher {
		return s.last
	}
	n := s.publishers[publisher]
	if n == nil {
		n = &numbers{publisher: publisher}
		if s.publishers == nil {
			s.publishers = make(map[uint64]*numbers)
		}
		s.publishers[publisher] = n
	}
	s.last = n
	return n
}

func (n *numbers) add(number uint64, now uint32) bool {
	word, bit := number/64, uint64(1)<<(number%64)
	i := n.after(word) // the block before it may have the number
	if i == 0 || n.blocks[i-1].end() < word {
		n.blocks = slices.Insert(n.blocks, i, block{word: word, bits: bit, at: now})
		return true
	}
	b := &n.blocks[i-1]
	if word < b.end() || b.bits&bit != 0 {
		return false
	}
	b.bits |= bit
	b.at = now
	if bits.OnesCount64(b.bits) == 64 {
		n.fill(i - 1)
	}
	return true
}

// after returns the index of the first block that begins after a word.
func (n *numbers) after(word uint64) int {
	if last := len(n.blocks); last == 0 || n.blocks[last-1].word <= word {
		return last
	}
	return sort.Search(len(n.blocks), func(i int) bool { return n.blocks[i].word > word })
}

// fill makes the bitmap word of a block a full word, and joins the block with
// the next one if that begins there.
func (n *numbers) fill(i int) {
	b := &n.blocks[i]
	b.full++
	b.bits = 0
	if i+1 == len(n.blocks) {
		return
	}
	if next := n.blocks[i+1]; next.word == b.end() {
		b.full += next.full
		b.bits = next.bits
		n.blocks = slices.Delete(n.blocks, i+1, i+2)
	}
}

// Forget drops the blocks that were last added to before a time.
func (s *Set) Forget(before uint32) {
	s.blocks, s.last = 0, nil
	for publisher, n := range s.publishers {
		n.blocks = slices.DeleteFunc(n.blocks, func(b block) bool { return b.at < before })
		if len(n.blocks) == 0 {
			delete(s.publishers, publisher)
			continue
		}
		if cap(n.blocks) > 2*len(n.blocks)+8 {
			n.blocks = slices.Clip(slices.Clone(n.blocks))
		}
		s.blocks += len(n.blocks)
	}
	if len(s.publishers) == 0 {
		s.publishers = nil // a map does not shrink
	}
}

// Median returns a time before which half of the blocks were last added to.
func (s *Set) Median() uint32 {
	times := make([]uint32, 0, s.blocks)
	for _, n := range s.publishers {
		for _, b := range n.blocks {
			times = append(times, b.at)
		}
	}
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[len(times)/2]
}
