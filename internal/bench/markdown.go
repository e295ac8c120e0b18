package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// showMarkdown prints a report as tables in Markdown, without ratios: one for
// all cases that have the same metrics.
func showMarkdown(w io.Writer, r *report) {
	var seen []string
	for _, c := range r.cases {
		metrics := c.measured(r.suite)
		key := fmt.Sprint(metrics)
		if len(metrics) == 0 || slices.Contains(seen, key) {
			continue
		}
		seen = append(seen, key)
		titles, rule := "| |  |", "|---|---|"
		for _, m := range metrics {
			titles, rule = titles+" "+m.title+" |", rule+"---:|"
		}
		fmt.Fprintf(w, "\n%s\n%s\n", titles, rule)
		for _, other := range r.cases {
			if fmt.Sprint(other.measured(r.suite)) == key {
				other.markdown(w, metrics)
			}
		}
	}
}

// measured returns the metrics that the contestants of a case have.
func (o *outcome) measured(s *suite) (list []metric) {
	for _, m := range s.metrics {
		if o.has(m.key) {
			list = append(list, m)
		}
	}
	return list
}

func (o *outcome) markdown(w io.Writer, metrics []metric) {
	name := o.name
	for _, p := range o.contestants {
		if len(o.all[p.name]) == 0 { // it was not chosen
			continue
		}
		cells := []string{name, p.name}
		for _, m := range metrics {
			cell := ""
			if v, ok := o.median(p.name, m.key); ok {
				cell = strconv.FormatFloat(v, 'f', m.digits, 64)
			}
			cells = append(cells, cell)
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
		name = ""
	}
}
