package kafka

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/IBM/sarama"
)

// shareOf reads what is assigned to us.
func (g *Group) shareOf(resp *sarama.SyncGroupResponse, generation int32) (map[spot]bool, error) {
	assigned := map[spot]bool{}
	if len(resp.MemberAssignment) == 0 {
		return assigned, nil
	}
	a, err := resp.GetMemberAssignment()
	if err != nil {
		return nil, fmt.Errorf("cannot read the assignment: %w", err)
	}
	if s, ok := g.strategy.(sarama.OnAssignmentBalanceStrategy); ok {
		s.OnAssignment(a, generation)
	}
	for topic, ids := range a.Topics {
		for _, id := range ids {
			assigned[spot{topic, id}] = true
		}
	}
	return assigned, nil
}

// divide puts the shares of all members into req.
func (g *Group) divide(ctx context.Context, joined *sarama.JoinGroupResponse, req *sarama.SyncGroupRequest) error {
	members, err := joined.GetMembers()
	if err != nil {
		return fmt.Errorf("cannot read the members: %w", err)
	}
	states, err := g.net.admin.inspect(ctx, g.cfg.Topics)
	if err != nil {
		return err
	}
	counts := partitionsOf(states)
	plan, err := g.strategy.Plan(members, maps.Clone(counts))
	if err != nil {
		return fmt.Errorf("cannot divide the partitions: %w", err)
	}
	for id := range members {
		if err := req.AddGroupAssignmentMember(id, &sarama.ConsumerGroupMemberAssignment{Version: 1, Topics: plan[id]}); err != nil {
			return err
		}
	}
	g.counts = counts
	return nil
}

// partitionsOf lists the partitions of the topics. A topic that is missing has none yet.
func partitionsOf(states []topicState) map[string][]int32 {
	counts := map[string][]int32{}
	for _, s := range states {
		for id := range s.partitions {
			counts[s.name] = append(counts[s.name], id)
		}
	}
	return counts
}

// look looks at the topics: those that were made anew are read from their beginning. divide says that we are the leader and
// that there are other partitions than were divided.
func (g *Group) look(ctx context.Context) (divide bool) {
	if g.counts == nil && g.cfg.Handle == nil {
		return false
	}
	ctx, cancel := g.session(ctx)
	defer cancel()
	states, err := g.net.admin.leadersIn(ctx, g.cfg.Topics)
	if err != nil {
		return false
	}
	for _, s := range states {
		for id := range s.partitions {
			g.renewOf(spot{s.name, id}, topicIDOf(s.id))
		}
	}
	return g.counts != nil && !maps.EqualFunc(partitionsOf(states), g.counts, slices.Equal[[]int32])
}
