package partition

import (
	"context"
	"slices"
	"sync"

	"github.com/fanoutgo/fanout/adapter"
)

// A part is a partition, and the receiver of its adapter.
type part struct {
	owner   *Adapter
	name    string
	adapter adapter.Adapter
	history adapter.Historian      // nil: it keeps none
	async   adapter.AsyncPublisher // nil: it does not have the capability
	health  adapter.HealthChecker  // as async

	ctx    context.Context // ends when the partition is closed
	cancel context.CancelFunc

	mu      sync.Mutex
	turns   map[string]*turn // channels that are being subscribed or unsubscribed
	copying map[string]bool  // channels to which a copy is being published
	listens bool             // the channels by which adapters talk were subscribed
	deaf    bool             // and are interrupted

	speech chan utterance // what is to be said to other adapters
	silent chan struct{}  // closed when nothing more is said
}

var _ adapter.HistoryReceiver = (*part)(nil)

func newPart(owner *Adapter, p Partition) *part {
	t := &part{
		owner: owner, name: p.Name, adapter: p.Adapter,
		turns: make(map[string]*turn), copying: make(map[string]bool), speech: make(chan utterance, 64),
		silent: make(chan struct{}),
	}
	t.ctx, t.cancel = context.WithCancel(owner.ctx)
	t.history, _ = p.Adapter.(adapter.Historian)
	t.async, _ = p.Adapter.(adapter.AsyncPublisher)
	t.health, _ = p.Adapter.(adapter.HealthChecker)
	return t
}

// hears reports whether other adapters can reach this one by the partition.
func (p *part) hears() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.listens && !p.deaf
}

// problem returns why the partition is not healthy, or nil.
func (p *part) problem() error {
	if p.health == nil {
		return nil
	}
	return p.health.Health()
}

// A turn lets one call at a time subscribe to a channel or unsubscribe from
// it, in the order in which they have asked.
type turn struct {
	queue []chan struct{} // the first has the turn
}

// take asks for the turn of a channel. The caller has the turn once the ticket
// is closed, and passes it on with give.
func (p *part) take(channel string) (ticket chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.turns[channel]
	if t == nil {
		t = new(turn)
		p.turns[channel] = t
	}
	ticket = make(chan struct{})
	t.queue = append(t.queue, ticket)
	if len(t.queue) == 1 {
		close(ticket)
	}
	return ticket
}

// give gives up a ticket, and with it the turn if it is the ticket's.
func (p *part) give(channel string, ticket chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.turns[channel]
	at := slices.Index(t.queue, ticket)
	t.queue = slices.Delete(t.queue, at, at+1)
	switch {
	case len(t.queue) == 0:
		delete(p.turns, channel)
	case at == 0:
		close(t.queue[0])
	}
}

// Receive, and the methods below, are called by the adapter of the partition.
func (p *part) Receive(channel string, frame []byte) {
	a := p.owner
	if a.control.is(channel) {
		a.control.receive(p, frame)
		return
	}
	if r := a.route(channel); r != nil {
		r.receive(frame)
	}
}

func (p *part) ReceiveKept(channel string, f adapter.KeptFrame) {
	if r := p.owner.route(channel); r != nil {
		r.receiveKept(f)
	}
}

func (p *part) Interrupted(channel string) { p.notice(channel, interrupted) }
func (p *part) Moving(channel string)      { p.notice(channel, moving) }
func (p *part) Restored(channel string)    { p.notice(channel, sound) }

func (p *part) notice(channel string, s status) {
	a := p.owner
	if a.control.is(channel) {
		a.control.notice(p, channel, s)
		return
	}
	if r := a.route(channel); r != nil {
		r.notice(p, s)
	}
}
