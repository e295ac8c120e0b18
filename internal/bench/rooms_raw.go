package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/redis/rueidis"
)

// raw subscribes the channels of all rooms with the client alone: the best that
// the servers and the client can do. It knows all rooms beforehand and
// subscribes in batches, while fanout's members join one by one; and it reports
// nothing to members.
func (e *estate) raw(ctx context.Context) (f figures, err error) {
	client, err := connect(e.cluster)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	all := newCountdown()
	all.begin(len(e.rooms))
	ctx, cancel := context.WithCancelCause(ctx)
	var work sync.WaitGroup
	defer func() {
		cancel(errRawOver)
		work.Wait()
	}()
	start := time.Now()
	for _, l := range e.rawLinks(client, all) {
		work.Go(func() {
			if err := l.run(ctx); !errors.Is(err, errRawOver) {
				cancel(fmt.Errorf("link to %s: %w", l.addr, err))
			}
		})
	}
	end, err := all.wait(ctx)
	if err != nil {
		return nil, err
	}
	all.begin(len(e.rooms))
	f, err = e.outage(ctx, all.wait)
	if err != nil {
		return nil, err
	}
	f["join"] = float64(len(e.rooms)) / end.Sub(start).Seconds()
	return f, nil
}

var errRawOver = errors.New("it is over")

// A rawLink is the connection to one primary, made again when it breaks.
type rawLink struct {
	client    rueidis.Client
	addr      string
	commands  [][]string // the channels of each; they are of one slot
	confirmed *countdown
}

const (
	// As many as fanout names in a command, and as many commands as it sends at
	// once.
	rawChannels = 256
	rawBatch    = 512
)

// rawLinks spreads the rooms over the primaries.
func (e *estate) rawLinks(client rueidis.Client, confirmed *countdown) (links []*rawLink) {
	bySlot := make(map[int][]string)
	for _, room := range e.rooms {
		channel := "fanout:r:{" + room + "}"
		slot := redistest.Slot(channel)
		bySlot[slot] = append(bySlot[slot], channel)
	}
	for _, n := range e.cluster.Primaries() {
		l := &rawLink{client: client, addr: n.Addr(), confirmed: confirmed}
		for _, slot := range e.cluster.SlotsOf(n) {
			l.commands = slices.AppendSeq(l.commands, slices.Chunk(bySlot[slot], rawChannels))
		}
		links = append(links, l)
	}
	return links
}

// run subscribes everything, and again when the connection breaks.
func (l *rawLink) run(ctx context.Context) error {
	for {
		conn, _ := l.client.Nodes()[l.addr].Dedicate()
		broken := conn.SetPubSubHooks(rueidis.PubSubHooks{
			OnMessage: func(rueidis.PubSubMessage) {},
			OnSubscription: func(s rueidis.PubSubSubscription) {
				if s.Kind == "ssubscribe" {
					l.confirmed.one()
				}
			},
		})
		err := l.subscribe(ctx, conn)
		if err == nil {
			select {
			case <-broken:
			case <-ctx.Done():
				err = context.Cause(ctx)
			}
		}
		conn.Close()
		if err != nil {
			return err
		}
	}
}

func (l *rawLink) subscribe(ctx context.Context, conn rueidis.DedicatedClient) error {
	for batch := range slices.Chunk(l.commands, rawBatch) {
		built := make(rueidis.Commands, len(batch))
		for i, channels := range batch {
			built[i] = conn.B().Ssubscribe().Channel(channels...).Build()
		}
		for _, r := range conn.DoMulti(ctx, built...) {
			if err := r.Error(); err != nil {
				return err
			}
		}
	}
	return nil
}
