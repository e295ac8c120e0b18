// Soak lets hubs, publishers and clients run on real clusters while these have
// one fault after the other, and verifies from the records that package fanout
// keeps its guarantees; see packages world and check. (The tests of
// adapter/nats do the same with NATS.)
//
//	go run ./internal/soak -server redis8 -seed 7          # one run, 2 minutes
//	go run ./internal/soak -seeds 10                       # ten on each server
//	go run ./internal/soak -seeds 1000 -for 8h             # over night
//	go run ./internal/soak -fault restart -persist -v      # one fault, in detail
//
// A run has all faults in turn and then random ones, drawn from its seed, until
// its time is up. Its record is kept in memory, about 1 MB a second, so to soak
// for hours means many seeds and not a long -time. It needs Docker; see package
// redistest.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fanoutgo/fanout/internal/redistest"
	"github.com/fanoutgo/fanout/internal/soak/check"
	"github.com/fanoutgo/fanout/internal/soak/world"
)

// servers are the servers that the project supports.
var servers = []struct{ name, image string }{
	{"redis7", redistest.Redis70},
	{"redis8", redistest.Redis80},
	{"valkey", redistest.Valkey81},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(soak(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// soak is main with its inputs and outputs. It returns the exit code.
func soak(ctx context.Context, args []string, out, log io.Writer) int {
	runs, limit, verbose, err := parseFlags(args, log)
	if err != nil {
		fmt.Fprintln(log, err)
		return 2
	}
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	var results []*result
	for _, cfg := range runs {
		if ctx.Err() != nil {
			break
		}
		fmt.Fprintf(log, "%s, seed %d\n", cfg.server, cfg.Seed)
		cfg.Log = new(world.Journal)
		if verbose {
			cfg.Log.Also = log
		}
		r := run(ctx, cfg)
		if ctx.Err() != nil {
			break // after that, its errors say nothing
		}
		results = append(results, r)
		if r.failed() && !verbose {
			cfg.Log.Print(log)
		}
		show(out, r)
	}
	return conclude(out, results)
}

// parseFlags returns the runs that are asked for, and how long all of them
// together may take; 0: any time.
func parseFlags(args []string, log io.Writer) (runs []config, limit time.Duration, verbose bool, err error) {
	f := flag.NewFlagSet("soak", flag.ContinueOnError)
	f.SetOutput(log)
	server := f.String("server", "all", "redis7, redis8, valkey, or all")
	seed := f.Uint64("seed", 1, "the first seed")
	seeds := f.Uint64("seeds", 1, "how many seeds, one after the other, on each server")
	length := f.Duration("time", 2*time.Minute, "how long faults happen in a run; all happen once in any case")
	f.DurationVar(&limit, "for", 0, "begin no run after this time, and give up the last one")
	rooms := f.Int("rooms", 50, "how many rooms; every other one has a history")
	plain := f.Bool("plain", false, "no room has a history")
	movers := f.Int("movers", 12, "how many clients come and go")
	pace := f.Duration("pace", 25*time.Millisecond, "between messages of a room")
	persist := f.Bool("persist", false, "servers write everything to their disks, so a restart loses nothing")
	only := f.String("fault", "", "only faults whose name contains one of these, separated by commas, in their order")
	slots := f.Int("slots", 1000, "how many slots move at a time")
	f.BoolVar(&verbose, "v", false, "say what happens")
	if err := f.Parse(args); err != nil {
		return nil, 0, false, err
	}
	cfg := config{
		Config: world.Config{Time: *length, Rooms: *rooms, Plain: *plain, Movers: *movers, Pace: *pace},
		slots:  *slots, persist: *persist,
	}
	for part := range strings.SplitSeq(*only, ",") {
		cfg.faults = append(cfg.faults, named(allFaults(*persist), part)...)
	}
	if len(cfg.faults) == 0 {
		return nil, 0, false, fmt.Errorf("no fault has a name as in %q", *only)
	}
	for cfg.Seed = *seed; cfg.Seed < *seed+*seeds; cfg.Seed++ {
		for _, s := range servers {
			if *server == "all" || *server == s.name {
				cfg.server, cfg.image = s.name, s.image
				runs = append(runs, cfg)
			}
		}
	}
	if len(runs) == 0 {
		return nil, 0, false, fmt.Errorf("nothing to do for server %q and %d seeds", *server, *seeds)
	}
	return runs, limit, verbose, nil
}

// show prints the result of a run.
func show(out io.Writer, r *result) {
	t := newTable(out)
	for _, f := range summed(r.report.Figures) {
		t.row(r.config.server, fmt.Sprint(r.config.Seed), f)
	}
	t.flush()
	const most = 20
	for i, f := range r.report.Failures {
		if i == most {
			fmt.Fprintf(out, "and %d more\n", len(r.report.Failures)-most)
			break
		}
		fmt.Fprintln(out, f)
	}
	if r.err != nil {
		fmt.Fprintln(out, r.err)
	}
	if r.failed() {
		fmt.Fprintf(out, "FAILED: -server %s -seed %d\n", r.config.server, r.config.Seed)
	}
	fmt.Fprintln(out)
}

// conclude prints the sums of all runs for each server, and which have failed.
func conclude(out io.Writer, results []*result) (code int) {
	t := newTable(out)
	for _, s := range servers {
		var figures [][]check.Figures
		seeds := 0
		for _, r := range results {
			if r.config.server == s.name {
				figures = append(figures, r.report.Figures)
				seeds++
			}
		}
		if seeds == 0 {
			continue
		}
		for _, f := range summed(figures...) {
			t.row(s.name, fmt.Sprintf("%d seeds", seeds), f)
		}
	}
	t.flush()
	fmt.Fprint(out, legend)
	for _, r := range results {
		if r.failed() {
			fmt.Fprintf(out, "FAILED: -server %s -seed %d\n", r.config.server, r.config.Seed)
			code = 1
		}
	}
	if len(results) == 0 || slices.ContainsFunc(results, (*result).failed) {
		return 1
	}
	fmt.Fprintf(out, "ok: %d runs\n", len(results))
	return code
}
