package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fanoutgo/fanout"
)

// sequence returns messages of a room as they come, one after the other.
func sequence(room string, n int) []fanout.Message {
	messages := make([]fanout.Message, n)
	for i := range messages {
		messages[i] = fanout.Message{Room: room, Sender: "hub", Data: newSaid("a", room, fmt.Append(nil, i))}
	}
	return messages
}

// batchOf collects messages as a socket does.
func (f *frames) batchOf(b *batch, messages []fanout.Message) {
	b.reset()
	var prev *frame
	for i := range messages {
		prev = f.of(&messages[i], prev)
		b.add(prev.bytes)
	}
}

// framesOf is what a page is to get.
func framesOf(messages []fanout.Message) []byte {
	var all []byte
	for i := range messages {
		all = append(all, textFrame(documentOf(&messages[i]))...)
	}
	return all
}

// In a burst nothing is copied for a member but the first of some batches: frames
// lie one after the other, and the next is found at the one before.
func TestBurstIsWrittenFromWhereItLies(t *testing.T) {
	f, burst, b := newFrames(), sequence("room", 400), new(batch)
	first := f.of(&burst[0], nil)
	assert.Nil(t, first.rest, "there may be no other")
	f.batchOf(new(batch), burst)
	copies := 0
	for i := 1; i+20 <= len(burst); i += 20 {
		f.batchOf(b, burst[i:i+20])
		require.Equal(t, framesOf(burst[i:i+20]), b.frames)
		if b.copied {
			copies++
		}
	}
	assert.LessOrEqual(t, copies, 4, "one for each strip that is full: 4, 8, 16 and 32 KiB")
	assert.Zero(t, testing.AllocsPerRun(10, func() { f.batchOf(b, burst[200:300]) }))

	at := f.of(&burst[100], nil)
	f.young.Load().Clear()
	for i := 101; i < 200; i++ {
		at = f.of(&burst[i], at)
		require.Nil(t, f.find(&burst[i]), "found without a search, not made anew")
	}
}

// Whatever members read, in whatever order and at the same time, each gets all
// frames of its own messages.
func TestBatchesOfAnySequenceAreWhole(t *testing.T) {
	f := newFrames()
	rooms := make([][]fanout.Message, 3)
	for i := range rooms {
		rooms[i] = sequence(fmt.Sprint("room", i), 300)
		for j := range rooms[i] {
			if rand.N(20) == 0 {
				rooms[i][j].Data = bytes.Repeat([]byte("x"), rand.N(8000)) // a stranger's, perhaps empty
			}
			if i == 2 { // it keeps a history, and has got what the others have
				rooms[i][j].Data = rooms[j%2][j].Data
				rooms[i][j].Position = fanout.Position{Epoch: 1, Offset: uint64(j + 1)}
			}
		}
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			b, at := new(batch), make([]int, len(rooms))
			for range 300 {
				var read []fanout.Message
				for range rand.N(4) {
					i := rand.N(len(rooms))
					n := min(rand.N(30), len(rooms[i])-at[i])
					read = append(read, rooms[i][at[i]:at[i]+n]...)
					at[i] += n
				}
				f.batchOf(b, read)
				if want := framesOf(read); !bytes.Equal(want, b.frames) {
					t.Errorf("%d bytes, want %d", len(b.frames), len(want))
				}
			}
		})
	}
	wg.Wait()
}

// What frames take is bounded, whatever is said: also where each second message
// begins a strip.
func TestFramesAreForgotten(t *testing.T) {
	f := newFrames()
	kept := func() (sum int) {
		seen := make(map[*byte]bool)
		for _, g := range []*sync.Map{f.young.Load(), f.old.Load()} {
			g.Range(func(_, v any) bool {
				fr := v.(*frame)
				sum += len(fr.data) + len(fr.bytes)
				if end := fr.bytes[:cap(fr.bytes)]; fr.strip > 0 && !seen[&end[len(end)-1]] {
					seen[&end[len(end)-1]] = true
					sum += fr.strip
				}
				return true
			})
		}
		return sum
	}
	for range 10_000 {
		pair := sequence("room", 2)
		f.batchOf(new(batch), pair)
	}
	assert.Less(t, kept(), 2*generation)
	assert.Greater(t, kept(), generation/2)
}
