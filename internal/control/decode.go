package control

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var (
	// ErrUnknown means a payload of a version or kind that this package does
	// not know. A newer hub may have sent it.
	ErrUnknown = errors.New("control: unknown version or kind of payload")
	// ErrMalformed means a payload that does not follow the format.
	ErrMalformed = errors.New("control: malformed payload")
)

// KindOf returns the kind of a payload; 0 if it is of a version that this
// package does not know.
func KindOf(payload []byte) Kind {
	if len(payload) < 2 || payload[0] != Version {
		return 0
	}
	return Kind(payload[1])
}

// Decode reads a payload. The result shares its bytes.
func Decode(payload []byte) (Payload, error) {
	if len(payload) < 2 {
		return nil, fmt.Errorf("%w: %d bytes", ErrMalformed, len(payload))
	}
	if payload[0] != Version {
		return nil, fmt.Errorf("%w: version %d", ErrUnknown, payload[0])
	}
	kind := KindOf(payload)
	r := reader{rest: payload[2:]}
	p := r.payload(kind)
	switch {
	case p == nil:
		return nil, fmt.Errorf("%w: kind %d", ErrUnknown, kind)
	case r.bad != "":
		return nil, fmt.Errorf("%w: kind %d: %s", ErrMalformed, kind, r.bad)
	}
	return p, nil
}

func (r *reader) payload(kind Kind) Payload {
	switch kind {
	case KindQuestion:
		return r.question()
	case KindAnswer:
		return r.answer()
	case KindCredit:
		return &Credit{ID: r.number(), From: r.number(), Upto: r.number()}
	case KindCancel:
		return &Cancel{ID: r.number()}
	case KindAnnouncement:
		return &Announcement{
			Life: r.number(), Seq: r.number(), Mode: Mode(r.byte()), Count: r.number(),
			Digest: r.digest(), Joined: r.entries(), Left: r.numbers(MaxEntries), Again: r.byte() != 0,
		}
	case KindHello:
		return &Hello{Incarnation: r.number(), Since: r.number(), Version: r.text(MaxName), Leaving: r.byte() != 0}
	case KindSuspect, KindGone:
		return &Verdict{Gone: kind == KindGone, Hub: r.digest(), Incarnation: r.number()}
	case KindProbe, KindAck:
		return &Probe{Ack: kind == KindAck, Number: r.number(), Hubs: r.number(), Digest: r.digest()}
	case KindRoster:
		return r.roster()
	}
	return nil
}

func (r *reader) question() *Question {
	return &Question{
		ID: r.number(), Attempt: r.number(), Op: Op(r.byte()), Credit: r.number(), Wait: r.number(),
		Scope: Scope(r.byte()), Which: r.number(), Names: r.names(), Rooms: r.names(), Text: r.text(MaxText),
		Life: r.number(), Seq: r.number(), Digest: r.digest(),
		Except: r.names(), ExceptRooms: r.names(), Data: r.text(len(r.rest)),
	}
}

func (r *reader) answer() *Answer {
	return &Answer{
		ID: r.number(), Attempt: r.number(), Status: Status(r.byte()), Page: r.number(),
		Covers: r.numbers(MaxNames), Count: r.number(), Entries: r.entries(),
		Life: r.number(), Seq: r.number(), Digest: r.digest(), Mode: Mode(r.byte()),
	}
}

func (r *reader) roster() *Roster {
	p := &Roster{Answer: r.byte() != 0}
	const least = 11 // bytes of an entry
	n := r.count(MaxEntries, least)
	if n > 0 {
		p.Hubs = make([]Known, n)
	}
	for i := range p.Hubs {
		p.Hubs[i] = Known{Hub: r.digest(), Incarnation: r.number(), Since: r.number(), Gone: r.byte() != 0}
	}
	return p
}

// A reader takes fields off a payload. After the first that is bad it returns
// zeros.
type reader struct {
	rest []byte
	bad  string
}

func (r *reader) fail(why string) {
	if r.bad == "" {
		r.bad = why
	}
	r.rest = nil
}

func (r *reader) number() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		r.fail("a number is cut short or too large")
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *reader) byte() byte {
	if len(r.rest) == 0 {
		r.fail("cut short")
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *reader) digest() uint64 {
	if len(r.rest) < 8 {
		r.fail("cut short")
		return 0
	}
	n := binary.BigEndian.Uint64(r.rest)
	r.rest = r.rest[8:]
	return n
}

// count reads the number of entries of a list, each of which takes at least
// least bytes.
func (r *reader) count(most, least int) int {
	n := r.number()
	if n > uint64(most) || n > uint64(len(r.rest)/least) {
		r.fail("a list is too long")
		return 0
	}
	return int(n)
}

func (r *reader) text(most int) []byte {
	n := r.number()
	if n > uint64(most) || n > uint64(len(r.rest)) {
		r.fail("a text is too long")
		return nil
	}
	s := r.rest[:n:n]
	r.rest = r.rest[n:]
	return s
}

func (r *reader) names() []string {
	n := r.count(MaxNames, 1)
	if n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = string(r.text(MaxName))
	}
	return list
}

func (r *reader) numbers(most int) []uint64 {
	n := r.count(most, 1)
	if n == 0 {
		return nil
	}
	list := make([]uint64, n)
	for i := range list {
		list[i] = r.number()
	}
	return list
}

func (r *reader) entries() []Entry {
	const least = 5 // bytes of an entry
	n := r.count(MaxEntries, least)
	if n == 0 {
		return nil
	}
	list := make([]Entry, n)
	for i := range list {
		list[i] = Entry{
			Number: r.number(), Since: r.number(), Count: r.number(),
			Name: r.text(MaxName), Data: r.text(len(r.rest)),
		}
	}
	return list
}
