package main

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"
)

// A report is the result of a suite.
type report struct {
	suite *suite
	cases []*outcome
	notes []string
}

// An outcome has the figures of a case, of all rounds.
type outcome struct {
	*contest
	all map[string]map[string][]float64 // by contestant and metric
}

// median returns the median of a figure, and whether it was measured.
func (o *outcome) median(contestant, key string) (float64, bool) {
	v := slices.Sorted(slices.Values(o.all[contestant][key]))
	switch n := len(v); {
	case n == 0:
		return 0, false
	case n%2 == 1:
		return v[n/2], true
	default:
		return (v[n/2-1] + v[n/2]) / 2, true
	}
}

// ratio returns how a contestant's figure compares to another's: the median of
// the ratios of each round, since what disturbs a round disturbs both.
func (o *outcome) ratio(contestant, to, key string) (float64, bool) {
	a, b := o.all[contestant][key], o.all[to][key]
	if len(a) == 0 || len(a) != len(b) {
		return 0, false
	}
	ratios := make([]float64, len(a))
	for i := range a {
		if b[i] == 0 {
			return 0, false
		}
		ratios[i] = a[i] / b[i]
	}
	slices.Sort(ratios)
	if n := len(ratios); n%2 == 0 {
		return (ratios[n/2-1] + ratios[n/2]) / 2, true
	}
	return ratios[len(ratios)/2], true
}

// run runs a suite and returns its report. After an error the report has what
// was measured before.
func run(ctx context.Context, s *suite, o *options, progress io.Writer) (*report, error) {
	r := &report{suite: s}
	cases, end, err := s.open(ctx, o)
	if err != nil {
		return r, fmt.Errorf("%s: %w", s.name, err)
	}
	err = runCases(ctx, r, cases, o, progress)
	if e := end(); err == nil {
		err = e
	}
	if err == nil && s.conclude != nil {
		s.conclude(r)
	}
	return r, err
}

func runCases(ctx context.Context, r *report, cases []*contest, o *options, progress io.Writer) error {
	for _, c := range cases {
		if !chosen(o.only, c.name, strings.Contains) {
			continue
		}
		out := &outcome{contest: c, all: make(map[string]map[string][]float64)}
		r.cases = append(r.cases, out)
		rounds := o.rounds
		if c.rounds > 0 {
			rounds = min(rounds, c.rounds)
		}
		for round := range rounds {
			for i := range c.contestants {
				p := c.contestants[(i+round)%len(c.contestants)]
				if !chosen(o.who, p.name, func(name, who string) bool { return name == who }) {
					continue
				}
				fmt.Fprintf(progress, "%s: %s: round %d of %d: %s\n", r.suite.name, c.name, round+1, rounds, p.name)
				debug.FreeOSMemory() // so that no contestant pays for memory that another has left
				f, err := p.turn(ctx, o)
				if err != nil {
					return fmt.Errorf("%s: %s: %s: %w", r.suite.name, c.name, p.name, err)
				}
				if out.all[p.name] == nil {
					out.all[p.name] = make(map[string][]float64)
				}
				for key, v := range f {
					out.all[p.name][key] = append(out.all[p.name][key], v)
				}
			}
		}
	}
	return nil
}

// chosen reports whether a name matches one of the texts of a flag, or the flag
// is not set.
func chosen(texts, name string, match func(name, text string) bool) bool {
	for text := range strings.SplitSeq(texts, "|") {
		if texts == "" || match(name, text) {
			return true
		}
	}
	return false
}
