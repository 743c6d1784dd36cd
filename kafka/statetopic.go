package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/IBM/sarama"
)

// A StateTopic is a topic that has to have certain settings.
type StateTopic struct {
	Name string
	// Partitions and Replication of a topic that is made; 0: the cluster's default for the first, and for the second as
	// many copies as there are brokers, three at most.
	Partitions  int32
	Replication int16
	// Settings are those it is made with. One that exists must have the same cleanup.policy; of other settings a
	// difference is only told in the log.
	Settings map[string]string
}

// ErrUnfitTopic: a topic has settings with which it can't be used.
var ErrUnfitTopic = errors.New("the Kafka topic is not fit for what it is for")

// settingPolicy decides whether Kafka forgets the last record of a key.
const settingPolicy = "cleanup.policy"

// EnsureState creates the topics that are missing, since nobody else knows what they must be like, and checks the settings
// of those that exist. An error that is not Final and no ErrUnfitTopic comes from the network or a cluster that is not
// complete: try again.
func (a *Admin) EnsureState(ctx context.Context, topics []StateTopic) (created []string, err error) {
	byName := make(map[string]StateTopic, len(topics))
	for _, t := range topics {
		byName[t.Name] = t
	}
	names := slices.Sorted(maps.Keys(byName))
	copies, err := a.copies(ctx, names)
	if err != nil {
		return nil, err
	}
	created, err = a.ensure(ctx, names, func(name string) *sarama.TopicDetail { return byName[name].detail(copies) })
	if err != nil {
		return created, err
	}
	return created, a.checkState(ctx, byName)
}

// copies gives how many copies of a topic there can be, three at most.
func (a *Admin) copies(ctx context.Context, topics []string) (n int16, err error) {
	err = a.ask(ctx, func(b *sarama.Broker) error {
		resp, err := b.GetMetadata(sarama.NewMetadataRequest(a.conf.Version, topics)) // no automatic creation
		if err != nil {
			return err
		}
		n = int16(min(len(resp.Brokers), mostCopies))
		return nil
	})
	return max(n, 1), err
}

// mostCopies is how many copies of state there are to be: one may be lost while another is being made anew.
const mostCopies = 3

// The settings that decide whether what Kafka has acknowledged can be lost.
const (
	settingInsync  = "min.insync.replicas"
	settingUnclean = "unclean.leader.election.enable"
)

// detail is how the topic is made. With three copies, two have to have what is acknowledged.
func (t StateTopic) detail(copies int16) *sarama.TopicDetail {
	settings := make(map[string]*string, len(t.Settings)+2)
	copies = or(t.Replication, copies)
	if two := "2"; copies >= mostCopies {
		settings[settingInsync] = &two
	}
	never := "false"
	settings[settingUnclean] = &never
	for k, v := range t.Settings {
		settings[k] = &v
	}
	return &sarama.TopicDetail{NumPartitions: or(t.Partitions, -1), ReplicationFactor: copies, ConfigEntries: settings}
}

// A Durability is how well Kafka keeps a topic.
type Durability struct {
	Topic  string
	Copies int // of the partition that has the fewest
	// Risks says what could be better with the brokers that there are; empty: nothing.
	Risks []string
}

// Durability looks at how well topics are kept. What the principal may not ask for is left out.
func (a *Admin) Durability(ctx context.Context, topics []string) (all []Durability, err error) {
	req := &sarama.DescribeConfigsRequest{Version: 4}
	for _, name := range topics {
		req.Resources = append(req.Resources, &sarama.ConfigResource{Type: sarama.TopicResource, Name: name, ConfigNames: []string{settingInsync, settingUnclean}})
	}
	err = a.ask(ctx, func(b *sarama.Broker) error {
		md, err := b.GetMetadata(sarama.NewMetadataRequest(a.conf.Version, topics))
		if err != nil {
			return err
		}
		resp, err := b.DescribeConfigs(req)
		if err != nil {
			return err
		}
		settings := map[string]map[string]string{}
		for _, r := range resp.Resources {
			settings[r.Name] = map[string]string{}
			for _, c := range r.Configs {
				settings[r.Name][c.Name] = c.Value
			}
		}
		all = all[:0]
		for _, t := range md.Topics {
			if len(t.Partitions) > 0 {
				all = append(all, durabilityOf(t, settings[t.Name], len(md.Brokers)))
			}
		}
		return nil
	})
	return all, err
}

func durabilityOf(t *sarama.TopicMetadata, settings map[string]string, brokers int) Durability {
	d := Durability{Topic: t.Name, Copies: len(t.Partitions[0].Replicas)}
	for _, p := range t.Partitions {
		d.Copies = min(d.Copies, len(p.Replicas))
	}
	if possible := min(brokers, mostCopies); d.Copies < possible {
		d.Risks = append(d.Risks, fmt.Sprintf("replication factor %d, %d brokers allow %d", d.Copies, brokers, possible))
	}
	if insync := settings[settingInsync]; d.Copies >= mostCopies && lower(insync, "2") {
		d.Risks = append(d.Risks, settingInsync+"="+insync+", should be 2")
	}
	if settings[settingUnclean] == "true" && d.Copies > 1 {
		d.Risks = append(d.Risks, settingUnclean+"=true, should be false")
	}
	return d
}

// checkState compares settings. A client that may not ask for them can't know, which the log says.
func (a *Admin) checkState(ctx context.Context, byName map[string]StateTopic) error {
	names := slices.Sorted(maps.Keys(byName))
	req := &sarama.DescribeConfigsRequest{Version: 4}
	for _, name := range names {
		req.Resources = append(req.Resources, &sarama.ConfigResource{Type: sarama.TopicResource, Name: name, ConfigNames: slices.Sorted(maps.Keys(byName[name].Settings))})
	}
	var resp *sarama.DescribeConfigsResponse
	err := a.ask(ctx, func(b *sarama.Broker) (err error) {
		resp, err = b.DescribeConfigs(req)
		return err
	})
	if err != nil {
		return err
	}
	var faults []error
	for _, r := range resp.Resources {
		if r.ErrorCode != 0 {
			faults = append(faults, a.unknownSettings(r))
			continue
		}
		faults = append(faults, a.compareSettings(byName[r.Name], r.Configs))
	}
	return errors.Join(faults...)
}

func (a *Admin) unknownSettings(r *sarama.ResourceResponse) error {
	switch err := sarama.KError(r.ErrorCode); err {
	case sarama.ErrTopicAuthorizationFailed, sarama.ErrClusterAuthorizationFailed:
		return fmt.Errorf("topic %q: its settings can't be checked: %w", r.Name, denied("DescribeConfigs", err))
	default:
		return fmt.Errorf("cannot ask for the settings of topic %q: %w", r.Name, err)
	}
}

// compareSettings tells what differs.
func (a *Admin) compareSettings(want StateTopic, have []*sarama.ConfigEntry) error {
	for _, c := range have {
		wanted, ok := want.Settings[c.Name]
		switch {
		case !ok || c.Value == wanted:
		case c.Name == settingInsync && !lower(c.Value, wanted):
		case c.Name == settingPolicy:
			return fmt.Errorf("%w: topic %q has cleanup.policy=%s and must have %s, or Kafka forgets what is stored; set it with: kafka-configs.sh --alter --topic %s --add-config cleanup.policy=%s",
				ErrUnfitTopic, want.Name, c.Value, wanted, want.Name, wanted)
		default:
			a.cfg.Logger.Warn().Str("kafka_topic", want.Name).Str("setting", c.Name).Str("value", c.Value).Str("recommended", wanted).Msg("the Kafka topic has another setting than it is made with")
		}
	}
	return nil
}

// lower compares numbers.
func lower(a, b string) bool {
	m, err := strconv.Atoi(strings.TrimSpace(a))
	n, err2 := strconv.Atoi(b)
	return err == nil && err2 == nil && m < n
}

// PartitionCount gives how many partitions a topic has.
func (a *Admin) PartitionCount(ctx context.Context, topic string) (int32, error) {
	states, err := a.inspect(ctx, []string{topic})
	if err != nil {
		return 0, err
	}
	for _, s := range states {
		if s.name == topic && s.exists {
			return s.partitions, nil
		}
	}
	return 0, fmt.Errorf("cannot see the Kafka topic %s yet", topic)
}
