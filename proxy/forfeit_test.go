package proxy

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// toOneOf is toOne with a second topic of commands.
const toOneOf = toOne + `
  - topic: others
    publish: devices/{key}/{header.name}
    correlation_data: "{header.id}"
    client: "{key}"
    receipts: receipts
`

// behind has a stored session of a device that is away, with a command that waits in each of these topics, and gives the
// streams that have them.
func (in *instance) behind(id string, topics ...string) (of []*stream) {
	in.t.Helper()
	d := lasting(id).to(in.t, in.addr, false)
	d.subscribe("devices/+/x", 1)
	d.leave()
	in.stored(id)
	for _, topic := range topics {
		before := in.sessions.streams.ends()
		in.write(now(topic, id, "x", "name", "x", "id", topic))
		in.until("it is read", func() bool {
			for _, st := range in.sessions.streams.all() {
				if st.topic == topic && st.next.Load() > before[st.id] {
					of = append(of, st)
					return true
				}
			}
			return false
		})
	}
	return of
}

// untold waits until nothing is left to tell of.
func (in *instance) untold() {
	in.t.Helper()
	in.until("all is told", func() bool { return in.sessions.forfeits.open.Load() == 0 })
}

// TestTopicThatIsDeletedHasNothingToTellOf: neither the sessions that end after it nor the stop wait for it, and what waits in
// another topic has its receipts.
func TestTopicThatIsDeletedHasNothingToTellOf(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := found(t, 2, toOneOf)
	s.settings.Kafka.CreateTopics = nil // nobody makes anew what is deleted here
	in := s.instance()
	in.serve()
	in.owned(in)
	var want []string
	for i := range 4 {
		id := fmt.Sprint("d", i)
		in.behind(id, "commands", "others")
		want = append(want, fmt.Sprintf("%s %s offline session_ended (others)", id, id))
	}
	_, err := in.topicAdmin().DeleteTopic(t.Context(), "commands")
	require.NoError(t, err)
	for i := range 4 {
		connecting{id: fmt.Sprint("d", i), clean: true}.to(t, in.addr, false).leave()
	}
	in.became(want...)
	in.untold()
	in.stop()
	in.became(want...)
}

// TestPartitionWithoutLeaderHoldsUpNoReceiptsOfOthers, neither those of the same session nor of those that end after it. What
// is in it is told of when it has one again.
func TestPartitionWithoutLeaderHoldsUpNoReceiptsOfOthers(t *testing.T) {
	t.Parallel() // most of it is waiting
	in := begin(t, 2, toOneOf)
	stuck := in.behind("d1", "commands", "others")[0]
	in.behind("d2", "others")
	stuck.reading <- struct{}{} // nobody can read it
	connecting{id: "d1", clean: true}.to(t, in.addr, false).leave()
	connecting{id: "d2", clean: true}.to(t, in.addr, false).leave()
	want := []string{"d1 d1 offline session_ended (others)", "d2 d2 offline session_ended (others)"}
	in.became(want...)
	require.EqualValues(t, 1, in.sessions.forfeits.open.Load())
	<-stuck.reading
	in.became(append(want, "d1 d1 offline session_ended (commands)")...)
	in.untold()
	in.stop()
}

// TestReplayEndsWithAPartitionThatIsNoMore: its topic was made anew with fewer of them.
func TestReplayEndsWithAPartitionThatIsNoMore(t *testing.T) {
	t.Parallel() // most of it is waiting
	in := begin(t, 3, toOne)
	id, st := "", (*stream)(nil)
	for i := 0; st == nil || st.partition == 0; i++ {
		id = fmt.Sprint("d", i)
		st = in.behind(id, "commands")[0]
	}
	st.reading <- struct{}{} // so that it is not replayed before the topic is another one
	lasting(id).to(t, in.addr, true)
	ends := lasting("ends").to(t, in.addr, false)
	ends.subscribe("devices/+/x", 1)
	in.anew("commands", 1)
	in.until("the new topic is followed", func() bool { return in.value("sluice_command_lost_positions_total", lostAnew) > 0 })
	<-st.reading
	in.replayed()
	ends.disconnects(0)
	in.untold()
}
