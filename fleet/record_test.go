package fleet

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func fullSession() *Session {
	expiry := uint32(7)
	s := &Session{
		Claim: 12, StateEpoch: 12, Began: 3, TxID: "sluice-x-0", Principal: "alice", Connected: 5, Clean: true,
		Expiry: NeverExpires, OfflineSince: 9, Subs: []Sub{{Filter: "a/+", QoS: 2, NoLocal: true, ID: 4, Owed: new("")}, {Filter: "b/#", Owed: new("b/c")}, {Filter: "c"}},
		Will: &Will{
			Topic: "w", Payload: []byte{0, 255}, QoS: 1, Retain: true, User: [][2][]byte{{[]byte("k"), []byte("v")}},
			Expiry: &expiry, Delay: 30, Due: 100, CorrelationData: []byte{1},
			Username: "alice", CommonName: "p1",
		},
		Out: []Out{{ID: 1, Topic: "t", Partition: 2, Offset: 3, Received: true}}, Received: []uint16{5, 6},
		Remote: "10.0.0.1:5", Version: "5",
	}
	s.Start("t", 2, 3)
	s.Settle("t", 2, 7)
	s.Origins, s.Subs[0].Origin = []Origin{{At: 8}}, 1
	s.Origins[0].Begins("t", 2, 5)
	return s
}

func TestSessionRecordRoundTrip(t *testing.T) {
	want := fullSession()
	got, err := DecodeSession(encode(t, want))
	require.NoError(t, err)
	require.Equal(t, want, got)
}

// TestSubscriptionBeginsAtItsOrigin, and one of a record without origins, or with a place among them that there is not, where
// the session is.
func TestSubscriptionBeginsAtItsOrigin(t *testing.T) {
	f := func(value string, want *Origin) {
		t.Helper()
		s, err := DecodeSession([]byte(value))
		require.NoError(t, err)
		require.Equal(t, want, s.OriginOf(&s.Subs[0]))
	}
	f(`{"v":1,"subs":[{"f":"a","o":2}],"origins":[{"at":1},{"at":2,"pos":{"t":{"3":4}}}]}`, &Origin{At: 2, Pos: map[string]map[int32]int64{"t": {3: 4}}})
	f(`{"v":1,"subs":[{"f":"a"}],"origins":[{"at":1}]}`, nil)
	f(`{"v":1,"subs":[{"f":"a"}]}`, nil)
	f(`{"v":1,"subs":[{"f":"a","o":2}],"origins":[{"at":1}]}`, nil)
	f(`{"v":1,"subs":[{"f":"a","o":-1}],"origins":[{"at":1}]}`, nil)
}

func TestSmallSessionMakesSmallRecord(t *testing.T) {
	require.Equal(t, `{"v":1,"claim":3,"state":3}`, string(encode(t, &Session{Claim: 3, StateEpoch: 3})))
	require.Nil(t, encode(t, nil))
}

func TestInstanceRecordRoundTrip(t *testing.T) {
	want := &Instance{Address: "a:1", Started: 3, TxIDs: []string{"x"}, Alive: 9, Dead: true, By: "y", At: 8}
	value, err := want.Encode()
	require.NoError(t, err)
	got, err := DecodeInstance(value)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func TestRecordOfANewerVersionIsRefusedAsSuch(t *testing.T) {
	f := func(value string, want error) {
		t.Helper()
		_, err := DecodeSession([]byte(value))
		require.ErrorIs(t, err, want)
		_, err = DecodeInstance([]byte(value))
		require.ErrorIs(t, err, want)
		_, _, err = new(Table).Apply(Record{Key: SessionKey("c", "x"), Value: []byte(value)})
		require.ErrorIs(t, err, want)
	}
	f(`{"v":2}`, ErrNewerVersion)
	f(`{"v":2,"claim":{"new":"shape"},"alive":{},"started":"then"}`, ErrNewerVersion)
	f(`{}`, ErrMalformed)
	f(`{"v":1`, ErrMalformed)
	f(`[]`, ErrMalformed)
	f(``, ErrMalformed)
}

func TestUnknownFieldsAreIgnored(t *testing.T) {
	s, err := DecodeSession([]byte(`{"v":1,"claim":4,"later":{"a":[1]}}`))
	require.NoError(t, err)
	require.Equal(t, &Session{Claim: 4}, s)
}

// TestWillWithoutACommonNameIsWrittenAndReadAsBefore there was one.
func TestWillWithoutACommonNameIsWrittenAndReadAsBefore(t *testing.T) {
	value := `{"v":1,"claim":4,"state":4,"will":{"topic":"w","username":"u"}}`
	s, err := DecodeSession([]byte(value))
	require.NoError(t, err)
	require.Equal(t, &Will{Topic: "w", Username: "u"}, s.Will)
	require.Equal(t, value, string(encode(t, s)))
}

func TestKeysRoundTrip(t *testing.T) {
	kind, client, inc, err := ParseKey(SessionKey("!i/odd/client", "x1"))
	require.NoError(t, err)
	require.Equal(t, []any{KeySession, "!i/odd/client", "x1"}, []any{kind, client, inc})
	kind, _, inc, err = ParseKey(InstanceKey("x1"))
	require.NoError(t, err)
	require.Equal(t, []any{KeyInstance, "x1"}, []any{kind, inc})
	kind, _, inc, err = ParseKey(VerdictKey("x1"))
	require.NoError(t, err)
	require.Equal(t, []any{KeyVerdict, "x1"}, []any{kind, inc})
	for _, key := range []string{"", "x", "!i/", "!d/", "\x00x", "c\x00", "c\x00x\x00y"} {
		_, _, _, err = ParseKey([]byte(key))
		require.ErrorIs(t, err, ErrMalformed, key)
	}
}

func TestLedgerKeysRoundTrip(t *testing.T) {
	k, err := ParseLedgerKey(LedgerIDsKey("c", "12"))
	require.NoError(t, err)
	require.Equal(t, LedgerKey{Kind: KeyIDs, Client: "c", Inc: "12"}, k)
	k, err = ParseLedgerKey(LedgerWillKey("c", 12))
	require.NoError(t, err)
	require.Equal(t, LedgerKey{Kind: KeyWill, Client: "c", Epoch: 12}, k)
	for _, key := range []string{"", "c", "c\x00x", "c\x00x\x00w", "c\x000\x00w", "\x00x\x00q", "c\x00x\x00z"} {
		_, err = ParseLedgerKey([]byte(key))
		require.ErrorIs(t, err, ErrMalformed, key)
	}
}

func FuzzTableNeverPanics(f *testing.F) {
	s, err := fullSession().Encode()
	require.NoError(f, err)
	f.Add("c\x00x", string(s))
	f.Add("!d/x", `{"v":1,"dead":true}`)
	f.Add("c\x00x", `{"v":1,"state":1,"will":{"topic":7},"expiry":-1}`)
	f.Fuzz(func(t *testing.T, key, value string) {
		table := new(Table)
		client, _, err := table.Apply(Record{Key: []byte(key), Value: []byte(value), Offset: 20})
		if err != nil {
			return
		}
		v, _ := table.Client(client)
		v.Entries()
		v.Holder(1)
		v.Base(1)
		v.Will("x", 1)
		v.Duty("x", 1)
		c := NewClaimer(&Writer{"x", "tx"})
		c.Connect(ConnectRequest{Clean: true}, v)
	})
}
