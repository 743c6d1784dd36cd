// Package performance is what `make performance` measures (TestPerformance of package test does the measuring) and the part
// of docs/performance.md, with its charts, that is made of it.
package performance

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"
)

// A Report is every figure of docs/performance/figures.json.
type Report struct {
	Parts []*Part `json:"parts"`
}

// A Part is measured in one go; its cases that are compared, in turns.
type Part struct {
	Name       string    `json:"name"`
	Machine    string    `json:"machine"`
	Revision   string    `json:"revision"`
	Librdkafka string    `json:"librdkafka,omitempty"` // its version
	Began      time.Time `json:"began"`
	Seconds    float64   `json:"seconds"`
	Idle       float64   `json:"idle"` // the share of the machine's CPU time that was idle just before or after, the lower one
	Short      bool      `json:"short,omitempty"`
	Cases      []*Case   `json:"cases"`
}

// A Case is one point of a chart or one cell of a table.
type Case struct {
	Series string `json:"series,omitempty"` // what grows, in the part "growth"
	Who    string `json:"who"`
	Load
	X       int     `json:"x,omitempty"` // how many of what grows there are
	Command string  `json:"command"`
	Rounds  []Round `json:"rounds"`
	Error   string  `json:"error,omitempty"` // why a round is missing
}

// A Load is what devices do.
type Load struct {
	Connections int    `json:"connections,omitempty"`
	Window      int    `json:"window,omitempty"` // unacknowledged messages of a connection
	QoS         byte   `json:"qos"`
	Size        int    `json:"size,omitempty"`
	Rate        int    `json:"rate,omitempty"` // messages a second; 0: as fast as they are acknowledged
	Compression string `json:"compression,omitempty"`
}

// A Round has the figures of a measurement by their names, which are those of quantities.
type Round map[string]float64

// The names of figures.
const (
	Acked     = "acked"
	PerSecond = "per_second"
	CPU       = "cpu_us_per_msg"
	P50       = "ms_p50"
	P99       = "ms_p99"
	Ready     = "ready_s"
	Memory    = "memory_mib"
	PerMatch  = "ns_per_match"
)

// Median gives the median of a figure over the rounds, the higher one of two in the middle; ok is false if no round has it.
func (c *Case) Median(name string) (value float64, ok bool) {
	var all []float64
	for _, r := range c.Rounds {
		if v, ok := r[name]; ok {
			all = append(all, v)
		}
	}
	if len(all) == 0 {
		return 0, false
	}
	slices.Sort(all)
	return all[len(all)/2], true
}

// Part gives the part of that name, nil if there is none.
func (r *Report) Part(name string) *Part {
	for _, p := range r.Parts {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// Put adds a part, in the place of one that has its name.
func (r *Report) Put(p *Part) {
	r.Parts = slices.DeleteFunc(r.Parts, func(old *Part) bool { return old.Name == p.Name })
	r.Parts = append(r.Parts, p)
}

// Read gives the report in a file, an empty one if there is no file.
func Read(path string) (*Report, error) {
	r := new(Report)
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return r, nil
	} else if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("cannot read the figures in %s: %w", path, err)
	}
	return r, nil
}

// Write writes the report to a file.
func (r *Report) Write(path string) error {
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
