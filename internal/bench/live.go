package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fanoutgo/fanout/internal/redistest"
)

const (
	livePeople    = 300
	liveProcesses = 2
	liveBursts    = 5  // at least, a turn
	liveRate      = 60 // messages a second, of all people together
)

// liveSuite measures what users of a chat have in the end: WebSockets,
// processes, a cluster. The processor time is that of the chat's processes,
// without that of the people, who are in this process, and of Redis.
var liveSuite = &suite{
	name:  "live",
	about: fmt.Sprintf("a chat of %d processes over a cluster of three, a room of %d people on WebSockets, messages of %d bytes", liveProcesses, livePeople, liveMessage),
	metrics: []metric{
		{key: "all", title: "ms until all have all"},
		{key: "p50", title: "p50 ms", digits: 2},
		{key: "p99", title: "p99 ms", digits: 2},
		{key: "cpu", title: "server µs/delivery", digits: 2},
	},
	open:     openLive,
	conclude: noteMissingPeer,
}

func openLive(ctx context.Context, o *options) (_ []*contest, _ func() error, err error) {
	dir, err := os.MkdirTemp("", "bench-live-")
	if err != nil {
		return nil, nil, err
	}
	var cluster *redistest.Cluster
	end := func() error {
		defer os.RemoveAll(dir)
		if cluster == nil {
			return nil
		}
		return cluster.Close()
	}
	defer func() {
		if err != nil {
			end()
		}
	}()
	if cluster, err = startCluster(ctx, 3); err != nil {
		return nil, nil, err
	}
	var nodes []string
	for _, n := range cluster.Nodes() {
		nodes = append(nodes, n.Addr())
	}
	chat, err := buildChat(ctx, dir, strings.Join(nodes, ","))
	if err != nil {
		return nil, nil, err
	}
	var peer *program
	if socketIOIsThere() && !o.quick {
		if peer, err = installSocketIO(ctx, strings.Join(nodes, ",")); err != nil {
			return nil, nil, err
		}
	}
	return liveContests(chat, peer), end, nil
}

// liveContests returns the cases, with the targets that the project has set
// itself. The peer may be nil.
func liveContests(chat, peer *program) []*contest {
	newCase := func(name string, chat *program, play play, targets ...target) *contest {
		c := &contest{name: name, measure: socketIOName, targets: targets}
		c.contestants = append(c.contestants, contestant{chat.name, chat.turn(play)})
		if peer != nil {
			c.contestants = append(c.contestants, contestant{peer.name, peer.turn(play)})
		}
		return c
	}
	of := func(key string, atMost float64) target {
		return target{of: chat.name, key: key, to: socketIOName, atMost: atMost}
	}
	return []*contest{
		newCase("burst", chat, playBurst, of("all", 0.1), of("cpu", 0.05)),
		newCase("steady", chat, playSteady, of("cpu", 0.9)),
		newCase("steady, gathered", chat.with("-gather", "50ms"), playSteady, of("cpu", 1.0/3)),
	}
}

// buildChat builds the chat example.
func buildChat(ctx context.Context, dir, nodes string) (*program, error) {
	path := filepath.Join(dir, "chat")
	build := exec.CommandContext(ctx, "go", "build", "-o", path, ".")
	build.Dir = "../../examples/chat" // of the folder of this module, in which it runs
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the chat: %w\n%s", err, out)
	}
	return &program{
		name:    "fanout",
		command: []string{path, "-addr", "127.0.0.1:0", "-adapter", "sharded", "-redis", nodes},
		dialect: chatDialect,
	}, nil
}

// A play is what people do in a turn. It returns the figures.
type play func(ctx context.Context, o *options, s *stage) (figures, error)

// A stage is a running program with people in one of its rooms.
type stage struct {
	processes []*process
	audience  *audience
}

// turn returns the turn of a contestant: it starts the program and brings
// people in. Before the play they rehearse, which shows that all are in one
// room, and lets programs warm up that are compiled while they run.
func (p *program) turn(play play) func(context.Context, *options) (figures, error) {
	return func(ctx context.Context, o *options) (_ figures, err error) {
		s := new(stage)
		defer func() {
			for _, process := range s.processes {
				process.stop()
			}
		}()
		for range liveProcesses {
			process, err := p.start(ctx)
			if err != nil {
				return nil, err
			}
			s.processes = append(s.processes, process)
		}
		people := livePeople
		if o.quick {
			people = 20
		}
		if s.audience, err = bringIn(ctx, p.dialect, s.processes, people); err != nil {
			return nil, err
		}
		defer s.audience.goHome()
		if err := s.audience.rehearse(ctx); err != nil {
			return nil, err
		}
		return play(ctx, o, s)
	}
}

// cpu returns the processor time that all processes have used.
func (s *stage) cpu() (sum time.Duration, err error) {
	for _, p := range s.processes {
		cpu, err := p.cpu()
		if err != nil {
			return 0, err
		}
		sum += cpu
	}
	return sum, nil
}

// playBurst has all people send a message at the same moment, some times.
func playBurst(ctx context.Context, o *options, s *stage) (figures, error) {
	before, err := s.cpu()
	if err != nil {
		return nil, err
	}
	bursts := liveBursts
	if o.quick {
		bursts = 1
	}
	var took []float64
	deliveries := 0
	for began := time.Now(); len(took) < bursts || time.Since(began) < o.duration && !o.quick; {
		h := s.audience.burst()
		if err := s.audience.await(ctx, h); err != nil {
			return nil, err
		}
		took = append(took, float64(h.ended.Sub(h.began).Microseconds())/1e3)
		deliveries += h.deliveries()
	}
	after, err := s.cpu()
	slices.Sort(took)
	return figures{
		"all": took[len(took)/2],
		"cpu": microseconds(after-before) / float64(deliveries),
	}, err
}

// playSteady has people send one message after the other, as in a lively room.
func playSteady(ctx context.Context, o *options, s *stage) (figures, error) {
	duration := o.duration
	if o.quick {
		duration = 300 * time.Millisecond
	}
	before, err := s.cpu()
	if err != nil {
		return nil, err
	}
	h := s.audience.converse(int(duration.Seconds()*liveRate), time.Second/liveRate)
	if err := s.audience.await(ctx, h); err != nil {
		return nil, err
	}
	after, err := s.cpu()
	delays := h.delays()
	return figures{
		"p50": microseconds(delays[len(delays)/2]) / 1e3,
		"p99": microseconds(delays[len(delays)*99/100]) / 1e3,
		"cpu": microseconds(after-before) / float64(h.deliveries()),
	}, err
}

func microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// noteMissingPeer says why there is no peer to compare with.
func noteMissingPeer(r *report) {
	if !socketIOIsThere() {
		r.notes = append(r.notes, socketIOName+" is missing: it needs node and npm on the PATH")
	}
}
