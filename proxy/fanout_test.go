package proxy

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/kafka"
)

// TestCommandsOfManyPartitionsToManyDevices: everything at once. Each command has one outcome at each device, what was
// withdrawn is at no device, and a device gets the commands of one key in their order.
func TestCommandsOfManyPartitionsToManyDevices(t *testing.T) {
	t.Parallel()
	const keys, perKey, fleet = 12, 20, 15
	in := begin(t, 12, toAll)
	for i := range fleet {
		d := dial(t, in.addr, fmt.Sprint("d", i), true)
		d.subscribe("fleet", 1)
		d.leave()
	}
	var writers sync.WaitGroup
	for key := range keys {
		writers.Go(func() {
			for n := range perKey {
				name := fmt.Sprintf("%d/%d", key, n)
				records := []*kafka.Fetched{now("commands", fmt.Sprint(key), name, "id", name)}
				if rand.IntN(4) == 0 {
					records = append(records, now("commands", fmt.Sprint(key), "null", headerCancel, name))
				}
				in.write(records...)
			}
		})
	}
	var devices sync.WaitGroup
	got := make([]map[string][]int, fleet) // by device and key
	for i := range fleet {                 // they come back while commands come
		d := dial(t, in.addr, fmt.Sprint("d", i), true)
		got[i] = map[string][]int{}
		devices.Go(func() { d.collect(got[i]) }) // ends with its connection
	}
	writers.Wait()
	outcomes := map[string]string{} // by device, partition and offset
	for _, r := range in.receipts(keys * perKey * fleet) {
		at := fmt.Sprint(r.ClientID, " ", r.Partition, " ", r.Offset)
		require.Empty(t, outcomes[at], at)
		require.Contains(t, []string{"delivered", "cancelled"}, r.Outcome)
		outcomes[at] = r.Outcome
	}
	in.stop()
	devices.Wait()
	had := 0
	for _, device := range got {
		for key, numbers := range device {
			had += len(numbers)
			for i := 1; i < len(numbers); i++ {
				require.Greater(t, numbers[i], numbers[i-1], "the order of key %s", key)
			}
		}
	}
	require.EqualValues(t, had, in.value("sluice_command_outcomes_total", "delivered"))
	require.EqualValues(t, keys*perKey*fleet-had, in.value("sluice_command_outcomes_total", "cancelled"))
}

// collect acknowledges and keeps the number of each command, whose payload is KEY/NUMBER, until the connection ends.
func (d *device) collect(got map[string][]int) {
	for {
		first, body, err := d.tryRead()
		if err != nil || first&0xF0 != 0x30 {
			return
		}
		m := decode(first, body)
		key, number, _ := strings.Cut(m.payload, "/")
		n, _ := strconv.Atoi(number)
		got[key] = append(got[key], n)
		if _, err := d.nc.Write([]byte{0x40, 2, byte(m.id >> 8), byte(m.id)}); err != nil {
			return
		}
	}
}
