package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
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

// framesOf is what a page has to get.
func framesOf(messages []fanout.Message) []byte {
	var all []byte
	for i := range messages {
		all = append(all, textFrame(documentOf(&messages[i]))...)
	}
	return all
}

// In a burst nothing is copied for a member, except for batches that cross the
// end of a strip: frames lie one behind the other, and each leads to the next.
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
	assert.LessOrEqual(t, copies, 2, "one for each strip that is full: 4 and 16 KiB of about 40")
	assert.Zero(t, testing.AllocsPerRun(10, func() { f.batchOf(b, burst[200:300]) }))

	at := f.of(&burst[100], nil)
	f.young.Load().Clear()
	for i := 101; i < 200; i++ {
		at = f.of(&burst[i], at)
		require.Nil(t, f.find(&burst[i]), "found without a search, not made anew")
	}
}

// Whatever members read, in whatever order and concurrently, each gets the
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
			if i == 2 { // it keeps a history, and has the messages of the others
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

// The memory of frames is bounded, whatever is published, in whatever order it
// is read.
func TestFramesAreForgotten(t *testing.T) {
	for name, read := range map[string]func(f *frames, b *batch){
		"each second message begins a strip": func(f *frames, b *batch) {
			for range 20_000 {
				f.batchOf(b, sequence("room", 2))
			}
		},
		"the later one is read first": func(f *frames, b *batch) {
			before := sequence("room", 1)[0]
			for range 80_000 {
				m := sequence("room", 1)[0]
				f.batchOf(b, []fanout.Message{m, before})
				before = m
			}
		},
		"a strip in each of many rooms goes on for long": func(f *frames, b *batch) {
			last := make(map[string]fanout.Message)
			for i := range 90 { // some bursts are a generation
				room := fmt.Sprint("room", i)
				burst := sequence(room, 40)
				for j := range burst {
					burst[j].Data = newSaid("a", room, bytes.Repeat([]byte("x"), 5000))
				}
				f.batchOf(b, burst)
				last[room] = burst[len(burst)-1]
				for room, m := range last {
					if next := sequence(room, 1)[0]; i%3 == 0 {
						f.batchOf(b, []fanout.Message{m, next})
						last[room] = next
					}
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, b := newFrames(), new(batch)
			read(f, b)
			b.reset()
			with := heap()
			runtime.KeepAlive(f)
			f = nil
			assert.Less(t, with-heap(), 3*generation)
		})
	}
}

// A page that is stuck in a batch keeps alive what it writes, and not all later
// frames.
func TestNobodyIsHeldByAStuckPage(t *testing.T) {
	ours, theirs := net.Pipe()
	s := newServer(nil, slog.New(slog.DiscardHandler))
	c := &socket{server: s, conn: &conn{Conn: ours, timeout: patience}}
	long := sequence("room", 6)
	for i := range long {
		long[i].Data = newSaid("a", "room", bytes.Repeat([]byte("x"), maxText))
	}
	written := make(chan error)
	go func() { written <- c.write(long) }()
	var one [1]byte
	_, err := theirs.Read(one[:]) // it is stuck in the first of two writes
	require.NoError(t, err)
	before := heap()
	at := s.frames.of(&long[maxWrite/maxText-1], nil) // with which the second will begin
	for range 80_000 {
		at = s.frames.of(&sequence("room", 1)[0], at)
	}
	assert.Less(t, heap()-before, 3*generation)
	theirs.Close()
	require.Error(t, <-written)
}

// heap returns how much memory is in use.
func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
