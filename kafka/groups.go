package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/IBM/sarama"
)

// Groups finds and removes consumer groups. Its methods may be called from any goroutine.
type Groups struct{ net *links }

// NewGroups checks cfg, of which it uses Brokers, ClientID, the time-outs and Logger. It connects with the first call.
func NewGroups(cfg Config) (*Groups, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("cannot look for consumer groups: %w", err)
	}
	return &Groups{newLinks(cfg, cfg.RequestTimeout)}, nil
}

// Close ends what is under way.
func (g *Groups) Close() { g.net.close() }

// Empty gives the consumer groups without members whose names begin with prefix. It needs Kafka 2.6.
func (g *Groups) Empty(ctx context.Context, prefix string) (names []string, err error) {
	brokers, err := g.brokers(ctx)
	if err != nil {
		return nil, err
	}
	for _, addr := range brokers { // each knows those that it coordinates
		var resp *sarama.ListGroupsResponse
		err := g.net.call(ctx, addr, func(b *sarama.Broker) (err error) {
			resp, err = b.ListGroups(&sarama.ListGroupsRequest{Version: 4, StatesFilter: []string{"Empty"}})
			return err
		})
		if err == nil && resp.Err != sarama.ErrNoError {
			err = denied("Describe", resp.Err)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot list the consumer groups of %s: %w", addr, err)
		}
		for name := range resp.Groups {
			if strings.HasPrefix(name, prefix) {
				names = append(names, name)
			}
		}
	}
	return names, nil
}

func (g *Groups) brokers(ctx context.Context) (addrs []string, err error) {
	admin := g.net.admin
	err = admin.ask(ctx, func(b *sarama.Broker) error {
		resp, err := b.DescribeCluster(sarama.NewDescribeClusterRequest(admin.conf.Version))
		if err != nil {
			return err
		}
		addrs = nil
		for _, b := range resp.Brokers {
			addrs = append(addrs, fmt.Sprintf("%s:%d", b.Host, b.Port))
		}
		return nil
	})
	return addrs, err
}

// Remove removes a consumer group with its offsets, unless it has members. It says whether it did.
func (g *Groups) Remove(ctx context.Context, name string) (bool, error) {
	code, err := g.net.coordinate(ctx, coordinated{sarama.CoordinatorGroup, name}, func(b *sarama.Broker) (sarama.KError, error) {
		resp, err := b.DeleteGroups(&sarama.DeleteGroupsRequest{Version: 1, Groups: []string{name}})
		if err != nil {
			return 0, err
		}
		return resp.GroupErrorCodes[name], nil
	})
	switch {
	case err != nil:
	case code == sarama.ErrNoError:
		return true, nil
	case code == sarama.ErrNonEmptyGroup, code == sarama.ErrGroupIDNotFound:
		return false, nil
	case code == sarama.ErrGroupAuthorizationFailed:
		err = errors.Join(ErrNotAuthorized, code)
	default:
		err = code
	}
	return false, fmt.Errorf("cannot remove the consumer group %s: %w", name, err)
}
