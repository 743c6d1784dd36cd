package fleet

import "slices"

// A Mark is the place of a command: the record at an offset of a partition. ID is that of the topic, "" is not known.
type Mark struct {
	Topic, ID string
	Partition int32
	Offset    int64
}

// Passes says that a session has come past a command.
func (p *Progress) Passes(at Mark) bool {
	return p != nil && p.Means(at.Topic, at.ID) && at.Offset < p.Reach(at.Topic, at.Partition)
}

// Skips says that a command is in one of the session's Gaps.
func (s *Session) Skips(at Mark) bool { return s.Gaps.Has(at) }

// Has says that a command is among those in Settled.
func (p *Progress) Has(at Mark) bool {
	return p != nil && p.Means(at.Topic, at.ID) && slices.ContainsFunc(p.Settled[at.Topic][at.Partition], func(r [2]int64) bool {
		return r[0] <= at.Offset && at.Offset < r[1]
	})
}

// Offered says that one who had the session has offered a command to it, or has said that it is not for it: all commands below
// an end, or up to where it is, but for those from before it began, and its gaps.
func (s *Session) Offered(at Mark) bool {
	to := &s.Progress
	if s.Ended {
		to = s.Ends
	}
	return to.Passes(at) && !s.Begins.Passes(at) && !s.Skips(at)
}

// mostGaps bounds the gaps of a partition. The latest count: who tells of what is in them may lag behind a little.
const mostGaps = 4

// gapsBehind gives the gaps of a session that one goes on with who has read commands up to heard.
func gapsBehind(s *Session, heard *Progress) *Progress {
	if heard == nil {
		return s.Gaps
	}
	gaps := new(Progress)
	if s.Gaps != nil {
		for topic, partitions := range s.Gaps.Settled {
			gaps.Bind(topic, s.Gaps.IDs[topic])
			for partition, ranges := range partitions {
				gaps.setRanges(topic, partition, ranges)
			}
		}
	}
	for topic, partitions := range heard.Pos {
		id := heard.IDs[topic]
		if !s.Means(topic, id) {
			continue
		}
		if !gaps.Means(topic, id) { // made anew: there are no such commands any more
			delete(gaps.Settled, topic)
		}
		for partition, to := range partitions {
			if from := s.Reach(topic, partition); from < to {
				ranges := insert(gaps.Settled[topic][partition], from, to)
				gaps.setRanges(topic, partition, ranges[max(0, len(ranges)-mostGaps):])
				gaps.Bind(topic, id)
			}
		}
	}
	if len(gaps.Settled) == 0 {
		return nil
	}
	return gaps
}
