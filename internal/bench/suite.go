package main

import (
	"context"
	"time"
)

// A suite is a list of cases with a name for the command line.
type suite struct {
	name    string
	about   string
	metrics []metric // in the order of the table's columns
	// open starts what the cases share, such as servers, and returns the cases
	// and a function that ends it.
	open func(ctx context.Context, o *options) (cases []*contest, end func() error, err error)
	// conclude may add to the report what no single case shows, such as growth
	// from case to case.
	conclude func(r *report)
}

// A metric is a column of the table.
type metric struct {
	key    string // in figures
	title  string // with its unit
	digits int    // after the point
	more   bool   // more is better
}

// A contest is a case: some contestants that do the same work.
type contest struct {
	name string
	// measure is the contestant to which ratios are: ours divided by its
	// figure.
	measure     string
	rounds      int // at most; 0: as many as the flag says
	contestants []contestant
	targets     []target
}

// A contestant does the work of a case, once a round. Everything that it needs
// is set up and taken down in its turn, outside of what is measured, so that
// contestants do not disturb each other.
type contestant struct {
	name string
	turn func(ctx context.Context, o *options) (figures, error)
}

// figures are the results of a turn, by the metrics' keys.
type figures map[string]float64

// A target is a bound for a figure of a contestant, by itself or as the ratio
// to the same figure of another in the same run.
type target struct {
	of      string // contestant
	key     string // metric
	to      string // the other contestant; empty: the figure itself
	atLeast float64
	atMost  float64 // one of the two
}

// options are the flags of the command line.
type options struct {
	rounds     int
	duration   time.Duration // of what is measured in a turn
	only       string        // cases with this in their name
	who        string        // contestants with this in their name
	pictures   string        // folder
	cpuProfile string        // file
	markdown   bool          // tables in Markdown
	quick      bool          // small sizes, to see that everything works
}
