package control

import "encoding/binary"

// A Payload is one of the structs of this package.
type Payload interface {
	// Append appends the payload to b.
	Append(b []byte) []byte
}

// Append appends a question.
func (q *Question) Append(b []byte) []byte {
	b = numbers(begin(b, KindQuestion), q.ID, q.Attempt)
	b = append(b, byte(q.Op))
	b = numbers(b, q.Credit, q.Wait)
	b = append(b, byte(q.Scope))
	b = numbers(b, q.Which)
	b = names(names(b, q.Names), q.Rooms)
	b = text(b, q.Text)
	b = numbers(b, q.Life, q.Seq)
	b = digest(b, q.Digest)
	b = names(names(b, q.Except), q.ExceptRooms)
	return text(b, q.Data)
}

// Append appends an answer.
func (a *Answer) Append(b []byte) []byte {
	b = numbers(begin(b, KindAnswer), a.ID, a.Attempt)
	b = append(b, byte(a.Status))
	b = numbers(b, a.Page)
	b = numberList(b, a.Covers)
	b = numbers(b, a.Count)
	b = entries(b, a.Entries)
	b = numbers(b, a.Life, a.Seq)
	b = digest(b, a.Digest)
	return append(b, byte(a.Mode))
}

// Append appends a credit.
func (c *Credit) Append(b []byte) []byte {
	return numbers(begin(b, KindCredit), c.ID, c.From, c.Upto)
}

// Append appends a cancel.
func (c *Cancel) Append(b []byte) []byte { return numbers(begin(b, KindCancel), c.ID) }

// Append appends an announcement.
func (a *Announcement) Append(b []byte) []byte {
	b = numbers(begin(b, KindAnnouncement), a.Life, a.Seq)
	b = append(b, byte(a.Mode))
	b = numbers(b, a.Count)
	b = digest(b, a.Digest)
	b = entries(b, a.Joined)
	b = numberList(b, a.Left)
	return flag(b, a.Again)
}

// Append appends a hello.
func (h *Hello) Append(b []byte) []byte {
	b = numbers(begin(b, KindHello), h.Incarnation, h.Since)
	return flag(text(b, h.Version), h.Leaving)
}

// Append appends a verdict.
func (v *Verdict) Append(b []byte) []byte {
	kind := KindSuspect
	if v.Gone {
		kind = KindGone
	}
	return numbers(digest(begin(b, kind), v.Hub), v.Incarnation)
}

// Append appends a probe or an ack.
func (p *Probe) Append(b []byte) []byte {
	kind := KindProbe
	if p.Ack {
		kind = KindAck
	}
	return digest(numbers(begin(b, kind), p.Number, p.Hubs), p.Digest)
}

// Append appends a roster.
func (r *Roster) Append(b []byte) []byte {
	b = flag(begin(b, KindRoster), r.Answer)
	b = numbers(b, uint64(len(r.Hubs)))
	for _, k := range r.Hubs {
		b = flag(numbers(digest(b, k.Hub), k.Incarnation, k.Since), k.Gone)
	}
	return b
}

// Size returns the number of bytes that an entry takes in a payload.
func (e *Entry) Size() int {
	return size(e.Number) + size(e.Since) + size(e.Count) +
		size(uint64(len(e.Name))) + len(e.Name) + size(uint64(len(e.Data))) + len(e.Data)
}

func begin(b []byte, k Kind) []byte { return append(b, Version, byte(k)) }

func numbers(b []byte, all ...uint64) []byte {
	for _, n := range all {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

func digest(b []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(b, n) }

func flag(b []byte, set bool) []byte {
	if set {
		return append(b, 1)
	}
	return append(b, 0)
}

func text[T string | []byte](b []byte, s T) []byte {
	return append(numbers(b, uint64(len(s))), s...)
}

func names(b []byte, list []string) []byte {
	b = numbers(b, uint64(len(list)))
	for _, name := range list {
		b = text(b, name)
	}
	return b
}

func numberList(b []byte, list []uint64) []byte {
	return numbers(numbers(b, uint64(len(list))), list...)
}

func entries(b []byte, list []Entry) []byte {
	b = numbers(b, uint64(len(list)))
	for i := range list {
		e := &list[i]
		b = text(text(numbers(b, e.Number, e.Since, e.Count), e.Name), e.Data)
	}
	return b
}

func size(n uint64) int {
	bytes := 1
	for n >= 0x80 {
		n >>= 7
		bytes++
	}
	return bytes
}
