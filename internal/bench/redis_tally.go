package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// messageLength is the length of all messages of the suites with Redis.
	messageLength = 128
	// stampLength is how much of it is a stamp.
	stampLength = 8
	// lostAfter is for how long nothing must have come until what is missing counts
	// as lost.
	lostAfter = time.Second
)

// A post is a message on its way: the number of its room, and what is said, which
// begins with a stamp where delays are measured.
type post struct {
	room int
	data []byte
}

// began is what stamps are counted from.
var began = time.Now()

// stamp writes the time into a message.
func (p post) stamp() {
	binary.LittleEndian.PutUint64(p.data, uint64(time.Since(began)))
}

// A tally is the end of a message's way: it counts what has come.
type tally struct {
	count  atomic.Int64
	next   atomic.Int64
	delays []time.Duration // in the order of coming; nil: they are not measured
}

// note notes that a message has come. Several goroutines may call it.
func (t *tally) note(data []byte) {
	if t.delays != nil {
		delay := time.Since(began) - time.Duration(binary.LittleEndian.Uint64(data))
		if i := int(t.next.Add(1)) - 1; i < len(t.delays) {
			t.delays[i] = delay
		}
	}
	t.count.Add(1)
}

// await waits until so many messages in all have come, and returns when the last
// of them came. If some are lost, it is the last of those that came, and the
// number of lost ones is returned too.
func (t *tally) await(ctx context.Context, all int64) (last time.Time, lost int64, err error) {
	seen := int64(-1)
	for {
		switch n := t.count.Load(); {
		case n > all:
			return last, 0, fmt.Errorf("%d messages came, and %d were published", n, all)
		case n != seen:
			seen, last = n, time.Now()
		case time.Since(last) > lostAfter:
			return last, all - n, nil
		}
		if seen == all {
			return last, 0, nil
		}
		select {
		case <-ctx.Done():
			return last, 0, context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
}

// quantile returns a quantile of the delays from a message on, in milliseconds.
func (t *tally) quantile(from int64, q float64) float64 {
	d := slices.Sorted(slices.Values(t.delays[from:t.count.Load()]))
	if len(d) == 0 {
		return 0
	}
	return float64(d[int(q*float64(len(d)-1))]) / float64(time.Millisecond)
}
