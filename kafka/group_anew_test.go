package kafka

import (
	"context"
	"encoding/base64"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestOffsetOfAnotherTopicIsNotTaken by a member that begins, whether the topic that has the name now has a record there or
// ends before. An offset that says of no topic is taken.
func TestOffsetOfAnotherTopicIsNotTaken(t *testing.T) {
	const records, another = 20, "AAAAAAAAAAAAAAAAAAAAAQ"
	for name, f := range map[string]struct {
		at       int64
		metadata string
		first    int64
	}{"inside": {7, another, 0}, "past the end": {70, another, 0}, "of no topic": {7, "", 7}} {
		t.Run(name, func(t *testing.T) {
			c := fake(t, kfake.SeedTopics(1, "t"), fastSessions)
			cl := client(t, c)
			putAll(t, cl, "t", 1, 0, records)
			offsets := kadm.Offsets{}
			offsets.Add(kadm.Offset{Topic: "t", At: f.at, LeaderEpoch: -1, Metadata: f.metadata})
			require.NoError(t, kadm.NewClient(cl).CommitAllOffsets(t.Context(), "g", offsets))
			d := newDesk()
			cfg := groupConfig(c.ListenAddrs(), "t")
			cfg.Handle = d.handle
			r := newRoom()
			a := r.join(t, cfg)
			eventually(t, func() bool { return d.count() == records-int(f.first) }, "all that is the group's came")
			require.Equal(t, f.first, d.got[0][0])
			a.leave()
			requireCommitted(t, cl, records)
		})
	}
}

// requireCommitted asks for the group's offset, which says of which topic it is.
func requireCommitted(t *testing.T, cl *kgo.Client, offset int64) {
	t.Helper()
	admin := kadm.NewClient(cl)
	topics, err := admin.ListTopics(t.Context(), "t")
	require.NoError(t, err)
	offsets, err := admin.FetchOffsets(t.Context(), "g")
	require.NoError(t, err)
	at, _ := offsets.Lookup("t", 0)
	require.Equal(t, offset, at.At)
	id := topics["t"].ID
	require.Equal(t, base64.RawURLEncoding.EncodeToString(id[:]), at.Metadata, "as Kafka's tools write it")
}

// TestTopicMadeAnewWhileItIsReadIsReadFromItsBeginning. What was handed out of the old one is not the group's any more, and
// what becomes of it moves no offset.
func TestTopicMadeAnewWhileItIsReadIsReadFromItsBeginning(t *testing.T) {
	for name, records := range map[string]int{"shorter": 5, "longer": 50} {
		t.Run(name, func(t *testing.T) {
			c := fake(t, kfake.SeedTopics(1, "t"), fastSessions)
			cl := client(t, c)
			d := newDesk()
			d.keep = true
			cfg := groupConfig(c.ListenAddrs(), "t")
			contexts := make(chan context.Context, 20+records)
			cfg.Handle = func(ctx context.Context, r *Fetched, done func(bool)) bool {
				contexts <- ctx
				return d.handle(ctx, r, done)
			}
			cfg.Begin = func(string, string, int32) (int64, bool) { return 0, true }
			a := newRoom().join(t, cfg)
			putAll(t, cl, "t", 1, 0, 20)
			eventually(t, func() bool { return d.count() == 20 }, "the old ones came")
			d.mu.Lock()
			late := slices.Clone(d.kept)
			d.mu.Unlock()
			for _, done := range late[:10] {
				done()
			}
			admin := kadm.NewClient(cl)
			_, err := admin.DeleteTopic(t.Context(), "t")
			require.NoError(t, err)
			_, err = admin.CreateTopic(t.Context(), 1, 1, nil, "t")
			require.NoError(t, err)
			old := <-contexts
			eventually(t, func() bool { return old.Err() != nil }, "the old ones are not ours any more")
			fresh := client(t, c) // which knows only the new one
			putAll(t, fresh, "t", 1, 0, records)
			eventually(t, func() bool { return d.count() == 20+records }, "all of the new one came")
			for _, done := range late[10:] {
				done()
			}
			d.mu.Lock()
			now := slices.Clone(d.kept[20:])
			d.mu.Unlock()
			for _, done := range now[:3] {
				done()
			}
			a.leave()
			requireCommitted(t, fresh, 3)
		})
	}
}
