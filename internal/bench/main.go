package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/pprof"
	"strings"
	"time"
)

// suites has all suites, in the order in which they run.
var suites = []*suite{localSuite, redisSuite, clusterSuite, hubsSuite, roomsSuite, liveSuite, choosingSuite}

func main() {
	beNATS()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := mainCode(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// beNATS does not return if this process is to be a NATS server.
func beNATS() {
	if len(os.Args) != 3 || os.Args[1] != natsCommand {
		return
	}
	if err := serveNATS(os.Args[2]); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func mainCode(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, chosen, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return 2
	}
	end, err := o.profile()
	if err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return 1
	}
	defer end()
	for _, s := range chosen {
		r, err := run(ctx, s, o, stderr)
		if o.markdown {
			showMarkdown(stdout, r)
		} else {
			show(stdout, r)
		}
		if err == nil && o.pictures != "" {
			err = draw(o.pictures, r)
		}
		if err != nil {
			fmt.Fprintf(stderr, "bench: %v\n", err)
			return 1
		}
	}
	return 0
}

func parse(args []string, stderr io.Writer) (*options, []*suite, error) {
	o := new(options)
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.IntVar(&o.rounds, "rounds", 5, "rounds in which every contestant has its turn")
	fs.DurationVar(&o.duration, "time", 2*time.Second, "how long a contestant is measured in a round, where that is not given by the work")
	fs.StringVar(&o.only, "run", "", "run only cases with this `text` in their name; several are separated by |")
	fs.StringVar(&o.who, "who", "", "run only contestants of this `name`; several are separated by |")
	fs.StringVar(&o.cpuProfile, "cpuprofile", "", "write a profile of this process to a `file`")
	fs.StringVar(&o.pictures, "pictures", "", "write an SVG of each suite into this `folder`")
	fs.BoolVar(&o.markdown, "markdown", false, "print tables in Markdown")
	fs.BoolVar(&o.quick, "quick", false, "small sizes, to see that everything works; the figures mean nothing")
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(stderr, "usage: bench [flags] SUITE…")
		fs.SetOutput(stderr)
		fs.PrintDefaults()
		fmt.Fprint(stderr, names())
		return nil, nil, err
	}
	if err != nil {
		return nil, nil, err
	}
	if o.rounds < 1 || o.duration <= 0 {
		return nil, nil, fmt.Errorf("-rounds is %d and -time %v, both must be positive", o.rounds, o.duration)
	}
	chosen, err := choose(fs.Args())
	return o, chosen, err
}

// profile begins a profile, if one is wanted, and returns a function that ends
// it.
func (o *options) profile() (end func(), err error) {
	if o.cpuProfile == "" {
		return func() {}, nil
	}
	f, err := os.Create(o.cpuProfile)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() { pprof.StopCPUProfile(); f.Close() }, nil
}

// choose returns the suites with these names.
func choose(wanted []string) (list []*suite, err error) {
	if len(wanted) == 0 {
		return nil, fmt.Errorf("name a suite:\n%s", names())
	}
next:
	for _, name := range wanted {
		for _, s := range suites {
			if s.name == name {
				list = append(list, s)
				continue next
			}
		}
		return nil, fmt.Errorf("there is no suite %q:\n%s", name, names())
	}
	return list, nil
}

func names() string {
	var b strings.Builder
	for _, s := range suites {
		fmt.Fprintf(&b, "  %-8s %s\n", s.name, s.about)
	}
	return b.String()
}
