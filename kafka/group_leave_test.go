package kafka

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A heldLeader divides the partitions of a group when it may.
type heldLeader struct {
	kgo.GroupBalancer
	held    atomic.Bool
	divides chan struct{} // it is about to, and held
	may     chan struct{}
}

func (l *heldLeader) MemberBalancer(members []kmsg.JoinGroupResponseMember) (kgo.GroupMemberBalancer, map[string]struct{}, error) {
	if l.held.Load() {
		l.divides <- struct{}{}
		<-l.may
	}
	return l.GroupBalancer.MemberBalancer(members)
}

// TestWhatIsSettledIsCommittedWhenAMemberLeavesWhilePartitionsAreDivided, however long that takes the leader: Kafka takes no
// commit meanwhile, and afterwards none of the generation before.
func TestWhatIsSettledIsCommittedWhenAMemberLeavesWhilePartitionsAreDivided(t *testing.T) {
	c := fake(t, kfake.SeedTopics(2, "t"), fastSessions)
	leader := &heldLeader{GroupBalancer: kgo.CooperativeStickyBalancer(), divides: make(chan struct{}), may: make(chan struct{})}
	first, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.ConsumerGroup("g"), kgo.ConsumeTopics("t"), kgo.DisableAutoCommit(),
		kgo.Balancers(leader), kgo.HeartbeatInterval(100*time.Millisecond), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(t, err)
	t.Cleanup(first.Close)
	d := newDesk()
	cfg := groupConfig(c.ListenAddrs(), "t")
	cfg.SessionTimeout, cfg.Handle = 20*time.Second, d.handle
	cfg.RevokeWait = 10 * time.Second // it tries so much longer than what is asked of it takes
	cfg.Begin = func(string, string, int32) (int64, bool) { return 0, true }
	r := newRoom()
	eventually(t, func() bool { id, _ := first.GroupMetadata(); return id != "" }, "there is a leader")
	a := r.join(t, cfg)
	eventually(t, func() bool { return len(a.g.Owned()) == 1 }, "it has one of two partitions")
	cl := client(t, c)
	putAll(t, cl, "t", 2, 0, 20)
	mine := a.g.Owned()[0].ID

	leader.held.Store(true)
	late := cfg
	late.Handle = func(context.Context, *Fetched, func(bool)) bool { return false }
	b := r.join(t, late)
	eventually(t, func() bool {
		select {
		case <-leader.divides:
			return true
		default:
			return false
		}
	}, "the leader has all members")
	eventually(t, func() bool { return d.distinct() == 10 }, "all of its partition are settled")
	var commits atomic.Int32
	c.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		commits.Add(1)
		return nil, nil, false
	})
	a.stop()
	gone := func() bool {
		select {
		case <-a.ended:
			return true
		default:
			return false
		}
	}
	eventually(t, func() bool { return commits.Load() >= 20 || gone() }, "it tries for seconds, or gives up")
	leader.held.Store(false)
	leader.may <- struct{}{}
	eventually(t, gone, "it leaves")
	offsets, err := kadm.NewClient(cl).FetchOffsets(t.Context(), "g")
	require.NoError(t, err)
	at, _ := offsets.Lookup("t", mine)
	require.EqualValues(t, 10, at.At)
	b.leave()
}

// TestAGroupBeginsWhereItsFirstMemberCame though that has left before the members were assembled: who comes next begins later by
// itself.
func TestAGroupBeginsWhereItsFirstMemberCame(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "t"), fastSessions)
	putAll(t, client(t, c), "t", 1, 0, 10)
	var held atomic.Bool
	var joins atomic.Int32
	held.Store(true)
	c.ControlKey(int16(kmsg.JoinGroup), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		joins.Add(1)
		resp := req.ResponseKind().(*kmsg.JoinGroupResponse)
		resp.ErrorCode = kerr.CoordinatorLoadInProgress.Code // come again
		return resp, nil, held.Load()
	})
	d, r := newDesk(), newRoom()
	beginning := func(offset int64) *seat {
		cfg := groupConfig(c.ListenAddrs(), "t")
		cfg.Handle, cfg.Begin = d.handle, func(string, string, int32) (int64, bool) { return offset, true }
		return r.join(t, cfg)
	}
	first := beginning(3)
	eventually(t, func() bool { return joins.Load() > 0 }, "it wants to be a member")
	first.leave()
	held.Store(false)
	beginning(10)
	eventually(t, func() bool { return d.distinct() == 7 }, "all from where the first came")
}

// TestAMemberThatLeavesSaysThatItOwnsWhatIsNotSettled, if the members are assembled once more meanwhile: or its partitions would
// be another's at once, with what is under way.
func TestAMemberThatLeavesSaysThatItOwnsWhatIsNotSettled(t *testing.T) {
	c := fake(t, kfake.SeedTopics(2, "t"), fastSessions)
	putAll(t, client(t, c), "t", 2, 0, 20)
	cfg := groupConfig(c.ListenAddrs(), "t")
	cfg.SessionTimeout, cfg.RevokeWait = 10*time.Second, time.Second
	cfg.Begin = func(string, string, int32) (int64, bool) { return 0, true }
	var handed, twice, syncs atomic.Int32
	cfg.Handle = func(context.Context, *Fetched, func(bool)) bool { handed.Add(1); return true } // never settled
	r := newRoom()
	a := r.join(t, cfg)
	eventually(t, func() bool { return handed.Load() == 20 }, "all is under way")
	id, _ := a.g.get()
	c.ControlKey(int16(kmsg.SyncGroup), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		req := kreq.(*kmsg.SyncGroupRequest)
		if req.MemberID != id || syncs.Add(1) > 1 {
			return nil, nil, false
		}
		a.stop()
		for a.g.moving.TryLock() { // until it gives its partitions back
			a.g.moving.Unlock()
			runtime.Gosched()
		}
		resp := req.ResponseKind().(*kmsg.SyncGroupResponse)
		resp.ErrorCode = kerr.RebalanceInProgress.Code // a third member has come
		return resp, nil, true
	})
	late := cfg
	late.Handle = func(context.Context, *Fetched, func(bool)) bool {
		if r.owned(a) > 0 {
			twice.Add(1)
		}
		return true
	}
	r.join(t, late)
	<-a.ended
	require.Positive(t, syncs.Load())
	require.Zero(t, twice.Load(), "records that another had while they were under way here")
}

// TestTheTwoThatStayGetWhatAMemberThatLeavesHasNotSettled, once, and nothing else a second time: whether the leader of the group
// leaves or another member, in peace or when the third one has just come, and what is under way is settled in time or not.
func TestTheTwoThatStayGetWhatAMemberThatLeavesHasNotSettled(t *testing.T) {
	const partitions = 6
	for i := range 8 {
		leader, assembling, inTime := i&1 > 0, i&2 > 0, i&4 > 0
		t.Run(fmt.Sprintf("leader %v, assembling %v, in time %v", leader, assembling, inTime), func(t *testing.T) {
			c := fake(t, kfake.SeedTopics(partitions, "t"), fastSessions)
			cl := client(t, c)
			cfg := groupConfig(c.ListenAddrs(), "t")
			cfg.SessionTimeout = 10 * time.Second
			if inTime {
				cfg.RevokeWait = patience
			}
			cfg.Begin = func(string, string, int32) (int64, bool) { return 0, true }
			r := newRoom()
			var mu sync.Mutex
			got := map[string][]int{} // which members had each record
			var open []func()         // of who leaves
			leaves := -1
			member := func(n int) *seat {
				cfg := cfg
				cfg.Handle = func(_ context.Context, rec *Fetched, done func(bool)) bool {
					mu.Lock()
					defer mu.Unlock()
					got[string(rec.Value)] = append(got[string(rec.Value)], n)
					if n == leaves {
						open = append(open, func() { done(true) })
					} else {
						done(true)
					}
					return true
				}
				return r.join(t, cfg)
			}
			members, written := []*seat{}, 0
			share := func() { // when each has its part
				for _, s := range members {
					eventually(t, func() bool { return r.owned(s) == partitions/len(members) }, "the partitions are shared")
				}
			}
			handled := func() {
				putAll(t, cl, "t", partitions, written, written+10*partitions)
				written += 10 * partitions
				eventually(t, func() bool {
					mu.Lock()
					defer mu.Unlock()
					return len(got) == written
				}, "all are handled")
			}
			for len(members) < 3 && !(assembling && len(members) == 2) {
				members = append(members, member(len(members)))
				share()
			}
			handled()
			mu.Lock()
			if leaves = 1; leader {
				leaves = 0
			}
			mu.Unlock()
			handled()
			if assembling {
				third := member(2)
				members = append(members, third)
				eventually(t, func() bool { id, _ := third.g.member.get(); return id != "" }, "the third one joins")
			}
			members[leaves].stop()
			if inTime {
				for _, done := range open {
					done()
				}
			}
			<-members[leaves].ended
			members = append(members[:leaves:leaves], members[leaves+1:]...)
			share()
			handled() // behind what comes again
			again := 0
			for value, by := range got {
				switch {
				case len(by) == 1:
				case !inTime && len(by) == 2 && by[0] == leaves && by[1] != leaves:
					again++
				default:
					t.Errorf("record %s came to %v", value, by)
				}
			}
			if inTime {
				require.Zero(t, again)
			} else {
				require.Equal(t, len(open), again)
			}
		})
	}
}

// TestAMemberLeavesWithinItsPatience though the coordinator says nothing, also while it joins.
func TestAMemberLeavesWithinItsPatience(t *testing.T) {
	for _, assembling := range []bool{false, true} {
		c := fake(t, kfake.SeedTopics(2, "t"))
		putAll(t, client(t, c), "t", 2, 0, 20)
		patience, out := context.WithCancel(t.Context())
		cfg := groupConfig(c.ListenAddrs(), "t")
		cfg.SessionTimeout, cfg.RevokeWait, cfg.Patience = 4*time.Minute, 4*time.Minute, patience
		cfg.Begin = func(string, string, int32) (int64, bool) { return 0, true }
		var handed atomic.Int32
		cfg.Handle = func(context.Context, *Fetched, func(bool)) bool { handed.Add(1); return true } // never settled
		a := newRoom().join(t, cfg)
		eventually(t, func() bool { return handed.Load() == 20 }, "all is under way")
		joins := make(chan struct{}, 1)
		for _, key := range []kmsg.Key{kmsg.Heartbeat, kmsg.JoinGroup, kmsg.OffsetCommit, kmsg.LeaveGroup} {
			c.ControlKey(int16(key), func(req kmsg.Request) (kmsg.Response, error, bool) {
				c.KeepControl()
				if key == kmsg.JoinGroup {
					close(joins)
				}
				if key != kmsg.Heartbeat || !assembling {
					return nil, nil, true
				}
				resp := req.ResponseKind().(*kmsg.HeartbeatResponse)
				resp.ErrorCode = kerr.RebalanceInProgress.Code
				return resp, nil, true
			})
		}
		if assembling {
			<-joins
		}
		a.stop()
		out()
		<-a.ended
	}
}

// TestDrainedIsSaidBeforeTheCoordinatorAnswers: who leaves has nothing to do with records any more, though offsets are not
// committed yet and the coordinator says nothing.
func TestDrainedIsSaidBeforeTheCoordinatorAnswers(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, "t"), fastSessions)
	d := newDesk()
	cfg := groupConfig(c.ListenAddrs(), "t")
	cfg.Handle = d.handle
	cfg.Begin = func(string, string, int32) (int64, bool) { return 0, true }
	drained := make(chan struct{})
	cfg.Drained = func(context.Context) { close(drained) }
	a := newRoom().join(t, cfg)
	putAll(t, client(t, c), "t", 1, 0, 5)
	eventually(t, func() bool { return d.distinct() == 5 }, "all are settled")
	answers := make(chan struct{})
	for _, key := range []kmsg.Key{kmsg.OffsetCommit, kmsg.LeaveGroup} {
		c.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
			c.KeepControl()
			select {
			case <-answers:
				return nil, nil, false
			default:
				return nil, errors.New("no answer"), true
			}
		})
	}
	select {
	case <-drained:
		require.Fail(t, "it is a member still")
	default:
	}
	a.stop()
	<-drained
	select {
	case <-a.ended:
		require.Fail(t, "it has left without the coordinator")
	default:
	}
	close(answers)
	<-a.ended
}
