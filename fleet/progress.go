package fleet

import "maps"

// Progress is how far a session has got in the command topics: per partition the first offset that is not settled,
// and what is settled above it. Both are needed: a QoS 2 command that was settled above an unsettled one would be
// delivered a second time. The zero value is that of a session that knows no topic.
type Progress struct {
	Pos map[string]map[int32]int64 `json:"pos,omitempty"`
	// IDs are those of the topics that Pos, Settled and a session's deliveries are about. A topic of the same name with
	// another ID is another topic. Not known where Kafka has none, and in records from before there was this field.
	IDs     map[string]string               `json:"ids,omitempty"`
	Settled map[string]map[int32][][2]int64 `json:"settled,omitempty"` // ranges [from,to), ascending, apart
	// Met has the offset after the last command that the session was offered, or that somebody was told is not for it, where
	// that is above Pos: who goes on with it may have read less.
	Met map[string]map[int32]int64 `json:"met,omitempty"`
	// Given has, where that is above Pos, the offset below which a holder that left no last word may have given commands with
	// QoS 0. They are not given again.
	Given map[string]map[int32]int64 `json:"given,omitempty"`
}

// Start sets where the session begins in a partition; what was settled there is forgotten.
func (p *Progress) Start(topic string, partition int32, offset int64) {
	put(&p.Pos, topic, partition, offset)
	p.setRanges(topic, partition, nil)
}

// Meet sets Met for a partition.
func (p *Progress) Meet(topic string, partition int32, offset int64) {
	put(&p.Met, topic, partition, offset)
}

// clone is a copy in which Met and IDs can be changed.
func (p Progress) clone() Progress {
	p.Met, p.IDs = maps.Clone(p.Met), maps.Clone(p.IDs)
	for topic, partitions := range p.Met {
		p.Met[topic] = maps.Clone(partitions)
	}
	return p
}

// MeetAll raises Met to positions in the same topics.
func (p *Progress) MeetAll(to *Progress) {
	for topic, partitions := range to.Pos {
		for partition, at := range partitions {
			if id := to.IDs[topic]; p.Means(topic, id) && at > p.Reach(topic, partition) {
				p.Meet(topic, partition, at)
				p.Bind(topic, id)
			}
		}
	}
}

// Give sets Given for a partition.
func (p *Progress) Give(topic string, partition int32, offset int64) {
	put(&p.Given, topic, partition, offset)
}

// hasGiven notes that a holder which has left no last word may have given all that is below ends. false: ends are those of
// another topic.
func (p *Progress) hasGiven(ends *Progress) bool {
	for topic, id := range ends.IDs {
		if !p.Means(topic, id) {
			return false
		}
	}
	for topic, partitions := range ends.Pos {
		for partition, end := range partitions {
			if end > max(p.Pos[topic][partition], p.Given[topic][partition]) {
				p.Give(topic, partition, end)
				p.Bind(topic, ends.IDs[topic])
			}
		}
	}
	return true
}

func put(offsets *map[string]map[int32]int64, topic string, partition int32, offset int64) {
	if *offsets == nil {
		*offsets = make(map[string]map[int32]int64)
	}
	if (*offsets)[topic] == nil {
		(*offsets)[topic] = make(map[int32]int64)
	}
	(*offsets)[topic][partition] = offset
}

// Reach is how far the session has come in a partition: what is below is settled, or it was offered, or is not for it.
func (p *Progress) Reach(topic string, partition int32) int64 {
	to := max(p.Pos[topic][partition], p.Met[topic][partition])
	if ranges := p.Settled[topic][partition]; len(ranges) > 0 {
		to = max(to, ranges[len(ranges)-1][1])
	}
	return to
}

// Bind says which topic of its name is meant; "" is not known.
func (p *Progress) Bind(topic, id string) {
	if id == "" {
		return
	}
	if p.IDs == nil {
		p.IDs = make(map[string]string)
	}
	p.IDs[topic] = id
}

// Means says whether the topic with an ID is the one of its name that is meant, as far as that is known.
func (p *Progress) Means(topic, id string) bool {
	meant := p.IDs[topic]
	return meant == "" || id == "" || meant == id
}

// Resume is where a returning session goes on in a partition whose tail is tail. A topic that the session does not
// know is new to it and begins at the tail; a partition unknown in a topic it knows was added since, and the
// session has missed nothing of it yet.
func (p *Progress) Resume(topic string, partition int32, tail int64) int64 {
	partitions, known := p.Pos[topic]
	if !known {
		return tail
	}
	return partitions[partition]
}

// Settle says that nothing is left to do for an offset. Offsets below the position are settled already. A
// partition that was not started has its position at 0.
func (p *Progress) Settle(topic string, partition int32, offset int64) {
	if p.Pos[topic] == nil {
		p.Start(topic, partition, 0)
	}
	pos := p.Pos[topic][partition]
	if offset < pos {
		return
	}
	ranges := insert(p.Settled[topic][partition], offset, offset+1)
	if ranges[0][0] == pos {
		pos, ranges = ranges[0][1], ranges[1:]
	}
	p.Pos[topic][partition] = pos
	p.setRanges(topic, partition, ranges)
}

// insert joins [from,to) into ascending ranges that do not touch, in a slice of its own.
func insert(ranges [][2]int64, from, to int64) [][2]int64 {
	i := 0
	for i < len(ranges) && ranges[i][1] < from {
		i++
	}
	j := i
	for j < len(ranges) && ranges[j][0] <= to {
		from, to = min(from, ranges[j][0]), max(to, ranges[j][1])
		j++
	}
	joined := make([][2]int64, 0, len(ranges)-(j-i)+1)
	joined = append(append(joined, ranges[:i]...), [2]int64{from, to})
	return append(joined, ranges[j:]...)
}

func (p *Progress) setRanges(topic string, partition int32, ranges [][2]int64) {
	if len(ranges) > 0 {
		if p.Settled == nil {
			p.Settled = make(map[string]map[int32][][2]int64)
		}
		if p.Settled[topic] == nil {
			p.Settled[topic] = make(map[int32][][2]int64)
		}
		p.Settled[topic][partition] = ranges
		return
	}
	delete(p.Settled[topic], partition)
	if len(p.Settled[topic]) == 0 {
		delete(p.Settled, topic)
	}
}
