package main

import (
	"context"
	"errors"
	"hash/fnv"

	"github.com/fanoutgo/fanout"
	"github.com/fanoutgo/fanout/adapter"
)

// routed is several adapters as one: each room belongs to one of them, by the
// hash of its name.
type routed struct{ groups []group }

// A group is an adapter that keeps histories.
type group interface {
	adapter.Adapter
	adapter.AsyncPublisher
	adapter.Historian
	adapter.HealthChecker
}

func newRouted(list []fanout.Adapter) *routed {
	r := new(routed)
	for _, a := range list {
		r.groups = append(r.groups, a.(group))
	}
	return r
}

func (r *routed) of(channel string) group {
	h := fnv.New64a()
	h.Write([]byte(channel))
	return r.groups[h.Sum64()%uint64(len(r.groups))]
}

func (r *routed) each(f func(group) error) error {
	var errs []error
	for _, g := range r.groups {
		errs = append(errs, f(g))
	}
	return errors.Join(errs...)
}

func (r *routed) Attach(to adapter.Receiver) error {
	return r.each(func(g group) error { return g.Attach(to) })
}

func (r *routed) Subscribe(ctx context.Context, channel string) error {
	return r.of(channel).Subscribe(ctx, channel)
}

func (r *routed) Unsubscribe(ctx context.Context, channel string) error {
	return r.of(channel).Unsubscribe(ctx, channel)
}

func (r *routed) Publish(ctx context.Context, channel string, frame []byte) (int, error) {
	return r.of(channel).Publish(ctx, channel, frame)
}

func (r *routed) PublishAsync(channel string, frame []byte, done adapter.Completion) bool {
	return r.of(channel).PublishAsync(channel, frame, done)
}

func (r *routed) Append(ctx context.Context, channel string, rec adapter.Record) (adapter.Position, int, error) {
	return r.of(channel).Append(ctx, channel, rec)
}

func (r *routed) History(ctx context.Context, channel string, q adapter.Query) (adapter.Page, error) {
	return r.of(channel).History(ctx, channel, q)
}

func (r *routed) Health() error { return r.each(group.Health) }

func (r *routed) Close(ctx context.Context) error {
	return r.each(func(g group) error { return g.Close(ctx) })
}
