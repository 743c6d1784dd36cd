package test

import (
	"bufio"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/test/cluster"
	"sluice/test/internal/wire"
)

// TestConnectThatIsRefusedLeavesNoSession: when Kafka stands still in the middle of many CONNECTs, those that are refused have
// begun no session, however far they had come. The device would get Session Present 1 for one that it knows nothing of
// [MQTT-3.2.2-4].
func TestConnectThatIsRefusedLeavesNoSession(t *testing.T) {
	besideOthers(t)
	kafka := cluster.Need(t, cluster.Config{Own: true})
	s := serve(t, kafka.Brokers(), oneTopic(newTopic(t, kafka, 1))+"limits: {connect_timeout: 1s}\n", "")
	connect := func(version byte, id string) (wire.Reply, error) {
		nc, err := net.Dial("tcp", s.address)
		if err != nil {
			return wire.Reply{}, err
		}
		defer func() { _ = nc.Close() }()
		_ = nc.SetDeadline(time.Now().Add(patience))
		hello := wire.Hello{Version: version, ID: id, Persist: true}
		if version == 5 {
			hello.Properties = wire.Properties(0x11, uint32(3600))
		}
		if _, err = nc.Write(hello.Packet()); err != nil {
			return wire.Reply{}, err
		}
		return wire.Read(bufio.NewReader(nc))
	}
	const devices = 20 // of each version
	var mu sync.Mutex  // guards refused
	refused := map[byte][]string{}
	var all sync.WaitGroup
	const late = 4 // that come when Kafka stands still
	open := make(chan struct{}, 2*devices+late)
	begin := func(i int) {
		version, id := byte(4+i%2), fmt.Sprint("refused", i)
		all.Go(func() { // ends with the answer, or after patience
			r, err := connect(version, id)
			open <- struct{}{}
			if err != nil || r.Code() == 0 {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			refused[version] = append(refused[version], id)
		})
	}
	for i := range 2 * devices {
		begin(i)
	}
	<-open
	require.NoError(t, kafka.Pause(0))
	for i := range late {
		begin(2*devices + i)
	}
	all.Wait()
	require.NoError(t, kafka.Resume(0))
	for _, version := range []byte{4, 5} {
		require.NotEmpty(t, refused[version], "version %d", version)
		for _, id := range refused[version] {
			var r wire.Reply
			await(t, func() (ok bool) {
				var err error
				r, err = connect(version, id)
				return err == nil && r.Code() == 0
			}, s.log.String)
			require.Zero(t, r.Body[0]&1, "Session Present, version %d, %s", version, id)
		}
	}
}
