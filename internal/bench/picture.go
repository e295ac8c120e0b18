package main

import (
	"fmt"
	"html"
	"os"
	"path/filepath"
	"strings"
)

// The picture has a block of bars for each case and metric, with a bar for each
// contestant, whose length is its median relative to the longest.
const (
	barHeight  = 16
	barGap     = 4
	blockGap   = 26
	labelWidth = 240
	barWidth   = 420
	valueWidth = 140
)

// draw writes a suite's figures as an SVG into a folder.
func draw(folder string, r *report) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, r.suite.name+".svg"), []byte(svg(r)), 0o644)
}

func svg(r *report) string {
	var b strings.Builder
	y := 30
	text(&b, 8, 20, 15, "start", r.suite.name+": "+r.suite.about)
	for _, m := range r.shown() {
		for _, c := range r.cases {
			if c.has(m.key) {
				y = block(&b, y+blockGap, m, c)
			}
		}
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="%[2]d" font-family="sans-serif">`+
		`<rect width="%[1]d" height="%[2]d" fill="white"/>`+"\n%[3]s</svg>\n",
		labelWidth+barWidth+valueWidth, y+barHeight, b.String())
}

// block draws one metric of one case from y on, and returns where it ends.
func block(b *strings.Builder, y int, m metric, c *outcome) int {
	better := "less is better"
	if m.more {
		better = "more is better"
	}
	text(b, 8, y, 12, "start", fmt.Sprintf("%s: %s (%s)", c.name, m.title, better))
	y += 8
	longest := 0.0
	for _, p := range c.contestants {
		v, _ := c.median(p.name, m.key)
		longest = max(longest, v)
	}
	for _, p := range c.contestants {
		v, ok := c.median(p.name, m.key)
		if !ok {
			continue
		}
		width := 1
		if longest > 0 {
			width = max(1, int(v/longest*barWidth))
		}
		colour := "#9aa5b1"
		if p.name == "fanout" {
			colour = "#2266cc"
		}
		text(b, labelWidth-8, y+barHeight-4, 12, "end", p.name)
		fmt.Fprintf(b, `<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>`+"\n", labelWidth, y, width, barHeight, colour)
		text(b, labelWidth+width+6, y+barHeight-4, 12, "start", fmt.Sprintf("%.*f", m.digits, v))
		y += barHeight + barGap
	}
	return y
}

func text(b *strings.Builder, x, y, size int, anchor, s string) {
	fmt.Fprintf(b, `<text x="%d" y="%d" font-size="%d" text-anchor="%s">%s</text>`+"\n", x, y, size, anchor, html.EscapeString(s))
}
