package kafka

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/IBM/sarama"
)

const (
	// missesToBelieve is how often the cluster has to say that a topic is missing before we do: a broker that
	// has just started, or was not yet told of a new topic, says so too. The answers come from different
	// brokers where there are some.
	missesToBelieve = 2
	// missingAgain is the time between such questions.
	missingAgain = 300 * time.Millisecond
	// defaultLimit is Kafka's own default of max.message.bytes.
	defaultLimit = 1<<20 + 12
)

// topicState is what the cluster says of one topic. Neither exists nor missing nor a verdict: ask again.
type topicState struct {
	name       string
	exists     bool
	missing    bool
	verdict    error // final
	partitions int32
	id         sarama.Uuid // zero with old brokers
	limit      int         // max.message.bytes
	limitKnown bool        // false: limit is Kafka's default, as we may not ask
	segment    int         // segment.bytes, which no batch may exceed either; 0: not known
	compacted  bool
	leaders    []leader // by partition
}

// addrs gives the addresses of the leaders by partition; "" is none.
func (s *topicState) addrs() []string {
	addrs := make([]string, len(s.leaders))
	for id, l := range s.leaders {
		addrs[id] = l.at.addr
	}
	return addrs
}

// A leader is where a partition can be written to.
type leader struct {
	at    node // the zero node: there is none
	epoch int32
}

// A node is a broker as it can be reached.
type node struct {
	id   int32
	addr string
}

// inspect asks for the state of topics, with one request for what they are and one for their configuration.
func (a *Admin) inspect(ctx context.Context, topics []string) ([]topicState, error) {
	var states []topicState
	err := a.ask(ctx, func(b *sarama.Broker) error {
		var err error
		if states, err = a.describe(b, topics); err == nil {
			err = configure(b, states)
		}
		return err
	})
	if slices.ContainsFunc(states, func(s topicState) bool { return s.missing }) {
		a.turn()
	}
	return states, err
}

// turn makes another broker answer the next request.
func (a *Admin) turn() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.addrs) > 1 {
		a.disconnect()
	}
}

func (a *Admin) describe(b *sarama.Broker, topics []string) ([]topicState, error) {
	resp, err := b.GetMetadata(sarama.NewMetadataRequest(a.conf.Version, topics)) // no automatic creation
	if err != nil {
		return nil, err
	}
	if len(resp.Brokers) == 0 {
		return nil, errors.New("the broker has only just started") // and says that everything is missing
	}
	addrs := make([]string, 0, len(resp.Brokers))
	for _, broker := range resp.Brokers {
		addrs = append(addrs, broker.Addr())
		if broker.ID() == resp.ControllerID {
			a.controller = broker.Addr()
		}
	}
	a.learn(addrs)
	nodes := nodesOf(resp)
	states := make([]topicState, 0, len(topics))
	for _, t := range resp.Topics {
		states = append(states, stateOf(t, nodes))
	}
	return states, nil
}

func nodesOf(resp *sarama.MetadataResponse) map[int32]node {
	nodes := make(map[int32]node, len(resp.Brokers))
	for _, b := range resp.Brokers {
		nodes[b.ID()] = node{b.ID(), b.Addr()}
	}
	return nodes
}

// leadersIn asks for the leaders of topics, and nothing else.
func (a *Admin) leadersIn(ctx context.Context, topics []string) (states []topicState, err error) {
	err = a.ask(ctx, func(b *sarama.Broker) error {
		states, err = a.describe(b, topics)
		return err
	})
	return states, err
}

func stateOf(t *sarama.TopicMetadata, nodes map[int32]node) topicState {
	s := topicState{name: t.Name, partitions: int32(len(t.Partitions)), id: t.Uuid, limit: defaultLimit, leaders: make([]leader, len(t.Partitions))}
	for _, p := range t.Partitions {
		if p.ID >= 0 && int(p.ID) < len(s.leaders) {
			s.leaders[p.ID] = leader{nodes[p.Leader], p.LeaderEpoch}
		}
	}
	switch t.Err {
	case sarama.ErrNoError, sarama.ErrLeaderNotAvailable:
		s.exists = s.partitions > 0
	case sarama.ErrUnknownTopicOrPartition:
		s.missing = true
	default:
		s.verdict = topicVerdict("Describe", t.Err)
	}
	return s
}

// configure fills in the limits of the topics that exist.
func configure(b *sarama.Broker, states []topicState) error {
	req := &sarama.DescribeConfigsRequest{Version: 4}
	byName := map[string]*topicState{}
	for i := range states {
		if s := &states[i]; s.exists {
			byName[s.name] = s
			req.Resources = append(req.Resources, &sarama.ConfigResource{Type: sarama.TopicResource, Name: s.name,
				ConfigNames: []string{"max.message.bytes", "segment.bytes", "cleanup.policy"}})
		}
	}
	if len(byName) == 0 {
		return nil
	}
	resp, err := b.DescribeConfigs(req)
	if err != nil {
		return err
	}
	for _, r := range resp.Resources {
		if s := byName[r.Name]; s != nil && r.ErrorCode == 0 {
			s.apply(r.Configs)
		}
	}
	return nil
}

func (s *topicState) apply(configs []*sarama.ConfigEntry) {
	for _, c := range configs {
		switch c.Name {
		case "max.message.bytes":
			if n, err := strconv.Atoi(c.Value); err == nil && n > 0 {
				s.limit, s.limitKnown = n, true
			}
		case "segment.bytes":
			if n, err := strconv.Atoi(c.Value); err == nil && n > 0 {
				s.segment = n
			}
		case "cleanup.policy":
			s.compacted = strings.Contains(c.Value, "compact")
		}
	}
}

// detail is how a topic is made that Config.CreateTopics is for.
func (a *Admin) detail(string) *sarama.TopicDetail {
	return &sarama.TopicDetail{NumPartitions: or(a.cfg.CreateTopics.Partitions, -1), ReplicationFactor: or(a.cfg.CreateTopics.Replication, -1)}
}

// create creates topics. The map has an entry for each, nil for what was made.
func (a *Admin) create(ctx context.Context, topics []string, detail func(topic string) *sarama.TopicDetail) (map[string]error, error) {
	details := map[string]*sarama.TopicDetail{}
	for _, t := range topics {
		details[t] = detail(t)
	}
	req := sarama.NewCreateTopicsRequest(a.conf.Version, details, a.cfg.RequestTimeout, false)
	results := map[string]error{}
	err := a.ask(ctx, func(b *sarama.Broker) error {
		resp, err := b.CreateTopics(req)
		if err != nil {
			return err
		}
		for _, t := range topics {
			results[t] = creation(resp.TopicErrors[t])
		}
		if errors.Is(results[topics[0]], sarama.ErrNotController) {
			return a.createAtController(req, topics, results)
		}
		return nil
	})
	return results, err
}

// createAtController is for clusters whose brokers do not pass the request on (those before KRaft).
func (a *Admin) createAtController(req *sarama.CreateTopicsRequest, topics []string, results map[string]error) error {
	if a.controller == "" {
		return sarama.ErrNotController
	}
	b := sarama.NewBroker(a.controller)
	defer func() { _ = b.Close() }() // what it was asked for is answered
	if err := a.dial.open(b, a.conf); err != nil {
		return a.cfg.Security.explain("cannot connect to", a.controller, err)
	}
	resp, err := b.CreateTopics(req)
	if err != nil {
		return err
	}
	for _, t := range topics {
		results[t] = creation(resp.TopicErrors[t])
	}
	return nil
}

func creation(e *sarama.TopicError) error {
	if e == nil {
		return sarama.ErrIncompleteResponse
	}
	if errors.Is(e.Err, sarama.ErrNoError) {
		return nil
	}
	return e
}

// legalTopic says whether Kafka would take the name.
func legalTopic(name string) bool {
	if name == "" || len(name) > 249 || name == "." || name == ".." {
		return false
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

func keys[V any](m map[string]V) []string { return sorted(slices.Collect(maps.Keys(m))) }

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}
