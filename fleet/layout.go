package fleet

import (
	"encoding/json"
	"fmt"
)

// A Layout is how the fleet spreads what it keeps: for each of its topics how many partitions keys are divided among. It
// is the number that the topic had when the fleet began. Partitions that are added later hold nothing of the fleet: with
// another number most keys would be looked for where they are not.
type Layout struct {
	Partitions map[string]int32 `json:"partitions"`
}

// Encode is the value of the layout's record.
func (l Layout) Encode() ([]byte, error) {
	return json.Marshal(struct {
		V int `json:"v"`
		Layout
	}{Version, l})
}

// DecodeLayout reads the value of the layout's record.
func DecodeLayout(value []byte) (Layout, error) {
	var l struct {
		V int `json:"v"`
		Layout
	}
	if err := decode(value, &l, &l.V); err != nil {
		return Layout{}, fmt.Errorf("layout: %w", err)
	}
	return l.Layout, nil
}

// Lower gives of two layouts the lower number of each topic: partitions are only ever added, so the lower number is the
// older one.
func (l Layout) Lower(other Layout) Layout {
	lower := Layout{Partitions: make(map[string]int32)}
	for _, from := range []Layout{l, other} {
		for topic, n := range from.Partitions {
			if known, ok := lower.Partitions[topic]; !ok || n < known {
				lower.Partitions[topic] = n
			}
		}
	}
	return lower
}
