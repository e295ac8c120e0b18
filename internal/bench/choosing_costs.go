package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/fanoutgo/fanout"
)

// costs returns the turn of a way: a hub publishes and another one, which uses
// another server where there are several, has a member in all rooms.
func (f *oneFarm) costs(w *way, nodes int) func(context.Context, *options) (figures, error) {
	return func(ctx context.Context, o *options) (c figures, err error) {
		if err := f.start(ctx, w, nodes); err != nil {
			return nil, err
		}
		before, err := f.usage(ctx)
		if err != nil {
			return nil, err
		}
		t := new(tally)
		p, err := openHubPair(ctx, choosingRooms, t, func(hub int) (fanout.Adapter, func(), error) {
			return f.adapter(w, hub, slog.New(slog.DiscardHandler))
		})
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, p.close()) }()
		waiting, flooding := crowdOf(64), crowd{publishers: 64, batch: 64}
		if o.quick {
			flooding = crowd{publishers: 4, batch: 4}
		}
		wait, err := flawless(ctx, f, t, waiting.publisher(ctx, p, choosingRooms, o.duration/2))
		if err != nil {
			return nil, fmt.Errorf("publishers wait: %w", err)
		}
		flood, err := flawless(ctx, f, t, flooding.publisher(ctx, p, choosingRooms, o.duration/2))
		if err != nil {
			return nil, fmt.Errorf("publishers don't wait: %w", err)
		}
		with, err := f.usage(ctx)
		if err != nil {
			return nil, err
		}
		all, err := costs(ctx, f, t, o.duration/costSlices, crowdOf(1).publisher(ctx, p, choosingRooms, o.duration/costSlices))
		if err != nil {
			return nil, err
		}
		c = figures{
			"published": wait.figures()["published"], "flooded": flood.figures()["received"], "busy": flood.figures()["servers"],
			"connections": with.minus(before).connections / 2,
		}
		for _, key := range []string{"servers", "commands", "bus", "in", "out"} {
			c[key] = all[key]
		}
		return c, nil
	}
}
