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
	s := c.base(newDialer(time.Second))
	require.NoError(t, s.Validate())
	require.False(t, s.Metadata.AllowAutoTopicCreation)
	require.True(t, s.ApiVersionsRequest, "each broker says which versions it knows")
	require.Equal(t, sarama.MaxVersion, s.Version)
	require.Greater(t, s.Net.ReadTimeout, c.RequestTimeout, "the broker's own time-out comes first")
	require.LessOrEqual(t, s.Net.ReadTimeout, 15*time.Second, "a silent network is noticed")
	require.True(t, gometrics.UseNilMetrics)
}

func TestTriesAreFurtherApartUpToALimitAndAtRandom(t *testing.T) {
	seen := map[time.Duration]bool{}
	for tries := range 100 {
		d := retryAfter(tries, slowest)
		seen[d] = true
		require.GreaterOrEqual(t, d, soonest/2)
		require.Less(t, d, slowest)
		if tries > 5 {
			require.GreaterOrEqual(t, d, slowest/2)
		}
	}
	require.Greater(t, len(seen), 90)
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
	require.True(t, d.begin(&cancel, "a"))
	d.cut()
	require.Error(t, ctx.Err())
	late, other := net.Pipe()
	defer other.Close()
	_, err := d.end(&cancel, late, nil)
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = late.Write([]byte{1})
	require.Error(t, err, "a connection that came too late is closed")
}
