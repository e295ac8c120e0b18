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
	// lostAfter is how long nothing must arrive before missing messages count
	// as lost.
	lostAfter = time.Second
)

// A post is a message to be published: the number of its room, and its data,
// which begin with a stamp where delays are measured.
type post struct {
	room int
	data []byte
}

// began is the time from which stamps are counted.
var began = time.Now()

// stamp writes the time into a message.
func (p post) stamp() {
	binary.LittleEndian.PutUint64(p.data, uint64(time.Since(began)))
}

// A tally counts the messages that have arrived.
type tally struct {
	count  atomic.Int64
	next   atomic.Int64
	delays []time.Duration // in the order of arrival; nil: they are not measured
}

// note counts a message that has arrived. It may be called concurrently.
func (t *tally) note(data []byte) {
	if t.delays != nil {
		delay := time.Since(began) - time.Duration(binary.LittleEndian.Uint64(data))
		if i := int(t.next.Add(1)) - 1; i < len(t.delays) {
			t.delays[i] = delay
		}
	}
	t.count.Add(1)
}

// await waits until a number of messages have arrived in all, and returns when
// the last of them arrived. If some are lost, last is the time of the last one
// that arrived, and lost is their number.
func (t *tally) await(ctx context.Context, all int64) (last time.Time, lost int64, err error) {
	seen := int64(-1)
	for {
		switch n := t.count.Load(); {
		case n > all:
			return last, 0, fmt.Errorf("%d messages arrived, but %d were published", n, all)
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
