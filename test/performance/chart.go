package performance

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// A chart has lines over a logarithmic axis. Its colours are seen on light and on dark pages.
type chart struct {
	title, x, y string
	lines       []line
}

type line struct {
	name   string
	points [][2]float64
}

const (
	width, height            = 640, 300
	left, right, top, bottom = 64, 150, 36, 44
)

var colours = []string{"#2f81f7", "#d9730d", "#2da44e", "#a371f7", "#d1498b", "#6e7781"}

// svg draws the chart.
func (c chart) svg() string {
	xs, most := []float64{}, 0.0
	for _, l := range c.lines {
		for _, p := range l.points {
			xs, most = append(xs, p[0]), max(most, p[1])
		}
	}
	slices.Sort(xs)
	xs = slices.Compact(xs)
	step := niceStep(most)
	ceiling := step * max(1, math.Ceil(most/step))
	px := func(x float64) float64 { return left + (width-left-right)*position(x, xs[0], xs[len(xs)-1]) }
	py := func(y float64) float64 { return height - bottom - (height-top-bottom)*y/ceiling }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%[1]d" height="%[2]d" font-family="sans-serif" font-size="12">
<style>text{fill:#57606a}.grid{stroke:#8c959f;stroke-opacity:.35}@media(prefers-color-scheme:dark){text{fill:#adb5bf}}</style>
`, width, height)
	text := func(x, y float64, attributes, s string) {
		fmt.Fprintf(&b, "<text x=\"%.1f\" y=\"%.1f\"%s>%s</text>\n", x, y, attributes, html.EscapeString(s))
	}
	text(left, 18, ` font-weight="bold"`, c.title)
	for y := 0.0; y <= ceiling+step/2; y += step {
		fmt.Fprintf(&b, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>\n", left, width-right, py(y), py(y))
		text(left-6, py(y)+4, ` text-anchor="end"`, short(y))
	}
	for _, x := range xs {
		text(px(x), height-bottom+16, ` text-anchor="middle"`, short(x))
	}
	text((left+width-right)/2, height-8, ` text-anchor="middle"`, c.x)
	text(0, 0, fmt.Sprintf(` text-anchor="middle" transform="translate(14 %d) rotate(-90)"`, (top+height-bottom)/2), c.y)
	for i, l := range c.lines {
		colour, path := colours[i%len(colours)], []string{}
		for _, p := range l.points {
			path = append(path, fmt.Sprintf("%.1f,%.1f", px(p[0]), py(p[1])))
			fmt.Fprintf(&b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", px(p[0]), py(p[1]), colour)
		}
		fmt.Fprintf(&b, "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"/>\n", strings.Join(path, " "), colour)
		key := float64(top + 10 + 18*i)
		fmt.Fprintf(&b, "<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" stroke-width=\"3\"/>\n", width-right+12, width-right+28, key-4, key-4, colour)
		text(width-right+34, key, "", l.name)
	}
	return b.String() + "</svg>\n"
}

// position gives the place of x between least and most, from 0 to 1. Zero stands beside 1.
func position(x, least, most float64) float64 {
	if least == most {
		return .5
	}
	log := func(v float64) float64 { return math.Log(max(v, 1)) }
	return (log(x) - log(least)) / max(log(most)-log(least), 1e-9)
}

// niceStep gives the distance of some five lines up to most.
func niceStep(most float64) float64 {
	if most <= 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(most/4)))
	for _, k := range []float64{1, 2, 5} {
		if most/(k*unit) <= 6 {
			return k * unit
		}
	}
	return 10 * unit
}

// short writes a number in few characters: 250, 1k, 2.5M.
func short(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.3gM", v/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%.3gk", v/1e3)
	}
	return fmt.Sprintf("%.3g", v)
}
