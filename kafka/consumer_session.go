package kafka

import (
	"errors"
	"math"

	"github.com/IBM/sarama"
)

// A fetchSession is what KIP-227 calls so: the broker remembers which partitions are fetched, and from where, so that a
// request and its answer have only those with news. With 100 partitions and a record here and there that is what most
// of the CPU time would go to, on both sides. The zero value is none, and asks for one.
type fetchSession struct {
	id    int32
	epoch int32               // of the next request; 0 begins a session
	sent  map[*follower]place // what the broker knows
}

// news gives those of the places to fetch that the broker has to be told of. sarama can't take a partition out of a
// session, so when one is to be fetched no more, a new session begins.
func (s *fetchSession) news(fetch []place) (news []place) {
	if s.epoch == 0 || !s.covers(fetch) {
		s.epoch, s.sent = 0, make(map[*follower]place, len(fetch)) // with the id of the old one, which ends it
	}
	for _, at := range fetch {
		if s.sent[at.p] != at {
			s.sent[at.p] = at
			news = append(news, at)
		}
	}
	return news
}

// covers says whether all that the broker would fetch is to be fetched.
func (s *fetchSession) covers(fetch []place) bool {
	kept := 0
	for _, at := range fetch {
		if _, ok := s.sent[at.p]; ok {
			kept++
		}
	}
	return kept == len(s.sent)
}

// next makes the session ready for the next request. A broker that has no room for a session gives no id.
func (s *fetchSession) next(id int32) {
	s.id = id
	if s.epoch++; s.epoch == math.MaxInt32 || id == 0 {
		s.epoch = 0
	}
}

// forgotten says whether the broker has no such session, as it has room for some only and may have started anew.
func forgotten(err error) bool {
	return errors.Is(err, sarama.ErrFetchSessionIDNotFound) || errors.Is(err, sarama.ErrInvalidFetchSessionEpoch)
}
