package nats

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"time"

	"github.com/fanoutgo/fanout/adapter"
	"github.com/fanoutgo/fanout/adapter/nats/internal/numbers"
)

// The first byte of what adapters send each other.
const (
	kindFrame  = 'F' // a frame of a channel: publisher, number, channel, frame
	kindMark   = 'M' // in a partition: publisher, how far it came, an asker and its round
	kindKept   = 'K' // a record of a stream, see record
	kindBeacon = 'B' // to all: publisher, partitions, bye, then how far it came in each
	kindAsk    = 'A' // to all: asker, round, the partitions that it has subscribed to
	kindClaim  = 'C' // to all: claimant, for how many milliseconds (0: no longer), channel
)

// errMalformed means bytes that no adapter has sent.
var errMalformed = errors.New("malformed")

// partitionOf returns the partition of a channel. The function never changes,
// because hubs of all versions have to agree.
func partitionOf(channel string, partitions int) int {
	h := fnv.New64a()
	h.Write([]byte(channel))
	return int(h.Sum64() % uint64(partitions))
}

// A reader takes values off a payload. After a value that is missing or
// malformed it returns zeros, and bad is true.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.rest, r.bad = nil, true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.rest, r.bad = nil, true
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) fixed() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) id() numbers.ID { return numbers.ID(r.fixed()) }

func appendFrame(b []byte, id numbers.ID, n uint64, channel string, frame []byte) []byte {
	b = binary.BigEndian.AppendUint64(append(b, kindFrame), uint64(id))
	b = binary.AppendUvarint(b, n)
	b = binary.AppendUvarint(b, uint64(len(channel)))
	b = append(b, channel...)
	return append(b, frame...)
}

// frameOverhead is the most that appendFrame and a record add to a frame, apart
// from the channel's name and past epochs.
const frameOverhead = 128

type mark struct {
	id    numbers.ID
	sent  uint64
	asker numbers.ID
	round uint64
}

func appendMark(b []byte, m mark) []byte {
	b = binary.BigEndian.AppendUint64(append(b, kindMark), uint64(m.id))
	b = binary.AppendUvarint(b, m.sent)
	b = binary.BigEndian.AppendUint64(b, uint64(m.asker))
	return binary.AppendUvarint(b, m.round)
}

func readMark(r *reader) mark {
	return mark{id: r.id(), sent: r.uvarint(), asker: r.id(), round: r.uvarint()}
}

// A beacon is what an adapter says of itself.
type beacon struct {
	id         numbers.ID
	partitions int
	bye        bool // it is its last
	sent       []uint64
	kept       []uint64 // the last number of each stream that it has seen
}

func appendBeacon(b []byte, m *beacon) []byte {
	b = binary.BigEndian.AppendUint64(append(b, kindBeacon), uint64(m.id))
	b = binary.AppendUvarint(b, uint64(m.partitions))
	bye := byte(0)
	if m.bye {
		bye = 1
	}
	b = append(b, bye)
	for _, list := range [][]uint64{m.sent, m.kept} {
		for _, n := range list {
			b = binary.AppendUvarint(b, n)
		}
	}
	return b
}

// readBeacon reads a beacon. That of an adapter with other partitions has no
// numbers.
func readBeacon(r *reader, partitions int) beacon {
	m := beacon{id: r.id(), partitions: int(min(r.uvarint(), maxPartitions+1))}
	if b := r.bytes(1); b != nil {
		m.bye = b[0] != 0
	}
	if m.partitions != partitions {
		return m
	}
	for _, list := range []*[]uint64{&m.sent, &m.kept} {
		*list = make([]uint64, partitions)
		for p := range *list {
			(*list)[p] = r.uvarint()
		}
	}
	return m
}

type ask struct {
	id         numbers.ID
	round      uint64
	partitions []int
	sent       []uint64 // by the asker, in each of the partitions
}

func appendAsk(b []byte, m ask) []byte {
	b = binary.BigEndian.AppendUint64(append(b, kindAsk), uint64(m.id))
	b = binary.AppendUvarint(b, m.round)
	for i, p := range m.partitions {
		b = binary.AppendUvarint(b, uint64(p))
		b = binary.AppendUvarint(b, m.sent[i])
	}
	return b
}

func readAsk(r *reader, partitions int) ask {
	m := ask{id: r.id(), round: r.uvarint()}
	for len(r.rest) > 0 && len(m.partitions) < partitions {
		p := r.uvarint()
		if p >= uint64(partitions) {
			r.bad = true
			break
		}
		m.partitions, m.sent = append(m.partitions, int(p)), append(m.sent, r.uvarint())
	}
	return m
}

// A claim asks other hubs to let the claimant append to a channel first.
type claim struct {
	id      numbers.ID
	wait    time.Duration // in whole milliseconds; 0: it has appended
	channel string
}

// minClaim and maxClaim bound how long a claim makes others wait.
const (
	minClaim = 25 * time.Millisecond
	maxClaim = 500 * time.Millisecond
)

func appendClaim(b []byte, m claim) []byte {
	b = binary.BigEndian.AppendUint64(append(b, kindClaim), uint64(m.id))
	b = binary.AppendUvarint(b, uint64(m.wait.Milliseconds()))
	return append(b, m.channel...)
}

func readClaim(r *reader) claim {
	m := claim{id: r.id(), wait: time.Duration(min(r.uvarint(), uint64(maxClaim.Milliseconds()))) * time.Millisecond}
	m.channel = string(r.rest)
	return m
}

// A record is a kept frame as a stream has it. One without messages begins an
// epoch.
type record struct {
	at       adapter.Position
	messages uint64
	ordinal  uint64 // of the record in its channel's history
	life     uint64 // of the server that kept it; 0 where servers don't matter
	before   []adapter.PastEpoch
	channel  string
	frame    []byte
}

// first is the offset of its first message.
func (r *record) first() uint64 { return r.at.Offset - r.messages + 1 }

func appendRecord(b []byte, r *record) []byte {
	b = append(b, kindKept)
	b = binary.AppendUvarint(b, r.at.Epoch)
	b = binary.AppendUvarint(b, r.at.Offset)
	b = binary.AppendUvarint(b, r.messages)
	b = binary.AppendUvarint(b, r.ordinal)
	b = binary.BigEndian.AppendUint64(b, r.life)
	b = binary.AppendUvarint(b, uint64(len(r.before)))
	for _, past := range r.before {
		whole := byte(0)
		if past.Whole {
			whole = 1
		}
		b = append(binary.AppendUvarint(binary.AppendUvarint(b, past.Epoch), past.Last), whole)
	}
	b = binary.AppendUvarint(b, uint64(len(r.channel)))
	b = append(b, r.channel...)
	return append(b, r.frame...)
}

// readRecord reads a record, without its kind. The frame shares memory with
// what was read.
func readRecord(r *reader) (record, error) {
	m := record{
		at:       adapter.Position{Epoch: r.uvarint(), Offset: r.uvarint()},
		messages: r.uvarint(),
		ordinal:  r.uvarint(),
		life:     r.fixed(),
	}
	past := r.uvarint()
	if past > maxPast {
		return m, errMalformed
	}
	for range past {
		p := adapter.PastEpoch{Epoch: r.uvarint(), Last: r.uvarint()}
		if b := r.bytes(1); b != nil {
			p.Whole = b[0] != 0
		}
		m.before = append(m.before, p)
	}
	m.channel = string(r.bytes(r.uvarint()))
	m.frame = r.rest[:len(r.rest):len(r.rest)]
	if r.bad || m.messages > m.at.Offset || m.at.Epoch == 0 {
		return m, errMalformed
	}
	return m, nil
}
