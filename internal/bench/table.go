package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
)

// show prints a report as a table: for each case and contestant the medians,
// each followed by the ratio to the case's measure; then the targets.
func show(w io.Writer, r *report) {
	fmt.Fprintf(w, "\n%s: %s\n\n", r.suite.name, r.suite.about)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	head := []string{"case", "contestant"}
	for _, m := range r.shown() {
		head = append(head, m.title)
	}
	fmt.Fprintln(t, strings.Join(head, "\t"))
	for _, c := range r.cases {
		for i, p := range c.contestants {
			name := ""
			if i == 0 {
				name = c.name
			}
			fmt.Fprintln(t, strings.Join(append([]string{name, p.name}, r.cells(c, p.name)...), "\t"))
		}
	}
	t.Flush()
	showTargets(w, r)
	for _, note := range r.notes {
		fmt.Fprintln(w, note)
	}
}

// shown returns the metrics of which any contestant has a figure.
func (r *report) shown() (list []metric) {
	for _, m := range r.suite.metrics {
		for _, c := range r.cases {
			if c.has(m.key) {
				list = append(list, m)
				break
			}
		}
	}
	return list
}

func (o *outcome) has(key string) bool {
	for _, p := range o.contestants {
		if len(o.all[p.name][key]) > 0 {
			return true
		}
	}
	return false
}

func (r *report) cells(c *outcome, contestant string) (cells []string) {
	for _, m := range r.shown() {
		v, ok := c.median(contestant, m.key)
		if !ok {
			cells = append(cells, "")
			continue
		}
		cell := strconv.FormatFloat(v, 'f', m.digits, 64)
		if ratio, ok := c.ratio(contestant, c.measure, m.key); ok && contestant != c.measure {
			cell += fmt.Sprintf(" (×%.2f)", ratio)
		}
		cells = append(cells, cell)
	}
	return cells
}

// showTargets prints the targets of the project, and whether they are met.
func showTargets(w io.Writer, r *report) {
	first := true
	for _, c := range r.cases {
		for _, t := range c.targets {
			if first {
				fmt.Fprintln(w, "\ntargets:")
				first = false
			}
			fmt.Fprintln(w, "  "+t.verdict(r.suite, c))
		}
	}
}

// verdict says in one line whether a target is met.
func (t target) verdict(s *suite, c *outcome) string {
	title := t.key
	for _, m := range s.metrics {
		if m.key == t.key {
			title = m.title
		}
	}
	v, ok := c.median(t.of, t.key)
	what := fmt.Sprintf("%s, %s of %s", c.name, title, t.of)
	if t.to != "" {
		v, ok = c.ratio(t.of, t.to, t.key)
		what += " to that of " + t.to
	}
	if !ok {
		return "not measured  " + what
	}
	bound, met := fmt.Sprintf("at most %.4g", t.atMost), v <= t.atMost
	if t.atLeast > 0 {
		bound, met = fmt.Sprintf("at least %.4g", t.atLeast), v >= t.atLeast
	}
	word := "met     "
	if !met {
		word = "NOT MET "
	}
	return fmt.Sprintf("%s %s: %.4g, should be %s", word, what, v, bound)
}
