package kafka

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/IBM/sarama"
	gometrics "github.com/rcrowley/go-metrics"
	"github.com/stretchr/testify/require"
)

func TestSettingsOnWhichThePromisesRest(t *testing.T) {
	c, err := Config{Brokers: []string{"x:1"}}.withDefaults()
	require.NoError(t, err)
	s := c.producer(newDialer(time.Second), func() bool { return false })
	require.NoError(t, s.Validate())
	require.Equal(t, sarama.WaitForAll, s.Producer.RequiredAcks)
	require.True(t, s.Producer.Idempotent)
	require.Equal(t, 1, s.Net.MaxOpenRequests)
	require.True(t, s.Producer.Return.Successes && s.Producer.Return.Errors)
	require.Equal(t, 5*time.Millisecond, s.Producer.Flush.Frequency)
	require.False(t, s.Metadata.AllowAutoTopicCreation)
	require.False(t, s.Metadata.Full)
	require.True(t, s.ApiVersionsRequest, "each broker says which versions it knows")
	require.Equal(t, sarama.MaxVersion, s.Version)
	require.Greater(t, s.Net.ReadTimeout, s.Producer.Timeout, "the broker's own time-out comes first")
	require.LessOrEqual(t, s.Net.ReadTimeout, 15*time.Second, "a silent network is noticed")
	require.GreaterOrEqual(t, s.ChannelBufferSize, maxInFlight, "no record waits in front of a channel")
	require.True(t, gometrics.UseNilMetrics)
}

func TestBackoffGrowsToItsLimitUnlessSkipped(t *testing.T) {
	never := func() bool { return false }
	for _, most := range []time.Duration{3 * time.Second, 500 * time.Millisecond} {
		c, err := Config{Brokers: []string{"x:1"}, MaxBackoff: most}.withDefaults()
		require.NoError(t, err)
		require.Equal(t, minBackoff, backoff(0, most, never))
		require.Equal(t, minBackoff, backoff(1, most, never))
		require.Equal(t, 2*minBackoff, backoff(2, most, never))
		total := time.Duration(0)
		for i := range c.producer(newDialer(time.Second), never).Producer.Retry.Max {
			require.LessOrEqual(t, backoff(i, most, never), most)
			total += backoff(i, most, never)
		}
		require.Greater(t, total, 9*time.Minute, "a partition that can't store is waited for")
	}
	require.Zero(t, backoff(5, time.Second, func() bool { return true }))
}

func TestDialerCutsWhatItMade(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	d := newDialer(time.Second)
	first, err := d.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	require.IsType(t, &net.TCPConn{}, first, "sarama looks at the socket")
	d.cut()
	_, err = first.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
	for range 5 {
		c, err := d.Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		require.NoError(t, c.Close())
	}
	require.LessOrEqual(t, len(d.conns), 1, "closed connections are forgotten")
	d.close()
	_, err = d.Dial("tcp", l.Addr().String())
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestDialerEndsAttempts(t *testing.T) {
	d := newDialer(time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	require.True(t, d.begin(&cancel))
	d.cut()
	require.Error(t, ctx.Err())
	late, other := net.Pipe()
	defer other.Close()
	_, err := d.end(&cancel, late, nil)
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = late.Write([]byte{1})
	require.Error(t, err, "a connection that came too late is closed")
}
