package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"sluice/kafka"
	"sluice/test/cluster"
	"sluice/tls"
	"sluice/tls/tlstest"
)

// TestKafkaSecurity holds what docs/kafka-security.md says, with one cluster for all of it.
func TestKafkaSecurity(t *testing.T) {
	besideOthers(t)
	s := needSecured(t)
	t.Run("every client comes in by every mechanism", func(t *testing.T) { everyMechanism(t, s) })
	t.Run("a session that ends is renewed and nothing is lost", func(t *testing.T) { sessionsRenewed(t, s) })
	t.Run("a wrong password is told with mechanism and user and no secret", func(t *testing.T) { wrongPasswords(t, s) })
	t.Run("who does not trust the other is told so", func(t *testing.T) { distrust(t, s) })
	t.Run("credentials that come true later are found", func(t *testing.T) { lateCredentials(t, s) })
	t.Run("a missing right is told with what it is for", func(t *testing.T) { missingRights(t, s) })
	t.Run("an instance runs with the rights that are listed and no other", func(t *testing.T) { leastRights(t, s) })
	t.Run("a rule writes as its own identity", func(t *testing.T) { ruleIdentity(t, s) })
	t.Run("an instance that is not let in ends", func(t *testing.T) { notLetIn(t, s) })
	t.Run("producers of different identities share a budget", func(t *testing.T) { identitiesShareABudget(t, s) })
}

func everyMechanism(t *testing.T, s *secured) {
	for _, mechanism := range []string{kafka.Plain, kafka.ScramSHA256, kafka.ScramSHA512, kafka.OAuthBearer} {
		t.Run(mechanism, func(t *testing.T) { everyClient(t, s, s.sasl(t, mechanism, root, passwords[root])) })
	}
	t.Run("certificate", func(t *testing.T) {
		cert, key := s.ca.Client(t, t.TempDir(), root)
		everyClient(t, s, s.mutual(t, cert, key))
	})
}

// everyClient has each of the room's clients do its work.
func everyClient(t *testing.T, s *secured, cfg kafka.Config) {
	log := new(lockedBuffer)
	cfg.Logger = zerolog.New(log).Level(zerolog.DebugLevel)
	topic := cluster.TopicName(t)
	admin, err := kafka.NewAdmin(cfg)
	require.NoError(t, err)
	defer func() { require.NoError(t, admin.Close()) }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	created, err := admin.Ensure(ctx, []string{topic})
	require.NoError(t, err)
	require.Equal(t, []string{topic}, created)
	_, err = admin.EnsureState(ctx, []kafka.StateTopic{{Name: topic + "-state", Partitions: 1, Settings: map[string]string{"cleanup.policy": "compact"}}})
	require.NoError(t, err)

	const records = 60
	p := quietProducer(t, cfg)
	done := newAnswers(records)
	for i := range records {
		p.Produce(&kafka.Record{Topic: topic, Key: fmt.Appendf(nil, "k%d", i), Value: fmt.Appendf(nil, "%d", i), Owner: done})
	}
	for range records {
		require.NoError(t, done.next(ctx, t))
	}
	require.Eventually(t, p.Up, patience, 10*time.Millisecond)
	transactions(ctx, t, cfg, topic)
	consumes(ctx, t, cfg, topic, records+1)
	groups(ctx, t, cfg, topic, records+1)
	reads(ctx, t, cfg, topic, records+1)
	noSecret(t, log.String())
}

func transactions(ctx context.Context, t *testing.T, cfg kafka.Config, topic string) {
	tr, err := kafka.NewTransactor(kafka.TransactorConfig{Config: cfg, TransactionalID: topic})
	require.NoError(t, err)
	running(t, tr.Run)
	require.NoError(t, tr.Renew(ctx))
	done := newAnswers(1)
	tr.Write(&kafka.TxGroup{Records: []*kafka.TxRecord{{Topic: topic, Value: []byte("tx")}}, Owner: done})
	require.NoError(t, done.next(ctx, t))
	f, err := kafka.NewFencer(cfg)
	require.NoError(t, err)
	require.NoError(t, f.Fence(ctx, topic))
	require.NoError(t, f.Close())
}

func consumes(ctx context.Context, t *testing.T, cfg kafka.Config, topic string, want int64) {
	var got atomic.Int64
	c, err := kafka.NewConsumer(kafka.ConsumerConfig{Config: cfg, Topics: []string{topic}, From: kafka.FromBeginning, Handle: func(*kafka.Fetched) { got.Add(1) }})
	require.NoError(t, err)
	running(t, c.Run)
	select {
	case <-c.Positioned():
	case <-ctx.Done():
		require.Fail(t, "not positioned")
	}
	require.Equal(t, want, got.Load())
}

func groups(ctx context.Context, t *testing.T, cfg kafka.Config, topic string, want int64) {
	var got atomic.Int64
	g, err := kafka.NewGroup(kafka.GroupConfig{Config: cfg, Name: topic, Topics: []string{topic},
		Begin:  func(string, string, int32) (int64, bool) { return 0, true },
		Handle: func(_ context.Context, _ *kafka.Fetched, done func(bool)) bool { got.Add(1); done(true); return true }})
	require.NoError(t, err)
	running(t, g.Run)
	require.Eventually(t, func() bool { return got.Load() == want || ctx.Err() != nil }, time.Minute, 5*time.Millisecond)
	require.NoError(t, ctx.Err())
}

func reads(ctx context.Context, t *testing.T, cfg kafka.Config, topic string, want int64) {
	r, err := kafka.NewReader(cfg)
	require.NoError(t, err)
	defer r.Close()
	var got int64
	for partition := range int32(3) {
		_, err := r.Read(ctx, topic, partition, 0, 1<<20, func(*kafka.Fetched) bool { got++; return true })
		require.NoError(t, err)
	}
	require.Equal(t, want, got)
}

// sessionsRenewed has Kafka end sessions every few seconds (KIP-368) while records flow. A connection that does not
// authenticate anew in time is closed by Kafka, which its client would log.
func sessionsRenewed(t *testing.T, s *secured) {
	for _, mechanism := range []string{kafka.ScramSHA512, kafka.OAuthBearer} {
		t.Run(mechanism, func(t *testing.T) {
			t.Parallel()
			cfg := s.sasl(t, mechanism, root, passwords[root])
			log := new(lockedBuffer)
			cfg.Logger = zerolog.New(log).Level(zerolog.WarnLevel)
			topic := newTopic(t, s.Cluster, 3)
			var followed atomic.Int64
			c, err := kafka.NewConsumer(kafka.ConsumerConfig{Config: cfg, Topics: []string{topic}, From: kafka.FromBeginning, Handle: func(*kafka.Fetched) { followed.Add(1) }})
			require.NoError(t, err)
			running(t, c.Run)
			p := quietProducer(t, cfg)
			st := newStream(topic, 20)
			ctx, cancel := context.WithTimeout(t.Context(), either(tokenLife*time.Second, 4*tokenLife*time.Second))
			defer cancel()
			given := s.tokens.given.Load()
			st.run(ctx, p)
			require.Eventually(t, func() bool { return len(st.window) == 0 }, time.Minute, 5*time.Millisecond, "every record is answered")
			st.verify(t, s.Direct())
			require.Eventually(t, func() bool { return followed.Load() == st.next.Load() }, time.Minute, 5*time.Millisecond)
			// Kafka closes a connection that is late, and on a busy machine one may be; without new proofs all would be.
			require.Less(t, strings.Count(log.String(), "\n"), 3, log.String())
			if mechanism == kafka.OAuthBearer {
				require.Positive(t, s.tokens.given.Load()-given, "a new token was asked for in time")
			}
		})
	}
}

func wrongPasswords(t *testing.T, s *secured) {
	const wrong = "Wrong-Guess-1"
	for _, mechanism := range []string{kafka.Plain, kafka.ScramSHA256, kafka.ScramSHA512, kafka.OAuthBearer} {
		err := refused(t, s.sasl(t, mechanism, root, wrong))
		require.ErrorContains(t, err, fmt.Sprintf("cannot authenticate at %s with %s as %q: ", s.At(cluster.SASL)[0], mechanism, root))
		require.NotContains(t, err.Error(), wrong)
		require.Equal(t, 1, strings.Count(err.Error(), "cannot authenticate"), "it is said once")
		require.False(t, kafka.Final(err), "no record is refused for it")
		t.Log(err)
	}
}

// refused gives the error of a client that is not let in for good.
func refused(t *testing.T, cfg kafka.Config) error {
	t.Helper()
	admin, err := kafka.NewAdmin(cfg)
	require.NoError(t, err)
	defer func() { require.NoError(t, admin.Close()) }()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err = admin.Ensure(ctx, []string{"any"})
	require.ErrorIs(t, err, kafka.ErrAuthentication)
	noSecret(t, err.Error())
	return err
}

func distrust(t *testing.T, s *secured) {
	other := tlstest.NewCA(t, "another-ca")
	try := func(name, want string, cfg kafka.Config) {
		t.Helper()
		err := refused(t, cfg)
		require.ErrorContains(t, err, "cannot agree with "+cfg.Brokers[0]+" on TLS", name)
		require.ErrorContains(t, err, want, name)
		t.Logf("%s: %v", name, err)
	}
	wrongCA, wrongHost := s.sasl(t, kafka.Plain, root, passwords[root]), s.sasl(t, kafka.Plain, root, passwords[root])
	wrongCA.Security.TLS = s.client(t, tls.ClientConfig{CA: other.File(t, t.TempDir())})
	try("wrong CA", "unknown authority", wrongCA)
	wrongHost.Security.TLS = s.client(t, tls.ClientConfig{ServerName: "kafka.example"})
	try("wrong host", "kafka.example", wrongHost)
	try("no certificate", "certificate", s.mutual(t, "", ""))
	cert, key := other.Client(t, t.TempDir(), root)
	try("a certificate of another CA", "remote error", s.mutual(t, cert, key))
	noSASL := s.sasl(t, kafka.Plain, root, passwords[root])
	noSASL.Brokers, noSASL.Security.TLS = s.Direct(), nil
	require.ErrorContains(t, refused(t, noSASL), "cannot authenticate at "+s.Direct()[0])
	// What tls.NewClient would not take from a file may still expire while it is used.
	cert, key = s.ca.Client(t, t.TempDir(), root, tlstest.Expired())
	expired := s.mutual(t, "", "")
	expired.Security.TLS = s.ca.ClientConfig(t, "127.0.0.1", cert, key)
	try("an expired certificate", "remote error", expired)
}

// lateCredentials has a producer run with a user that Kafka learns of later.
func lateCredentials(t *testing.T, s *secured) {
	const user, password = "late", "Comes-Later-3"
	topic := newTopic(t, s.Cluster, 1)
	log := new(lockedBuffer)
	cfg := s.sasl(t, kafka.ScramSHA256, user, password)
	cfg.Logger = zerolog.New(log)
	p := quietProducer(t, cfg)
	done := newAnswers(1)
	p.Produce(&kafka.Record{Topic: topic, Value: []byte("kept"), Owner: done})
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "cannot authenticate at") }, time.Minute, 5*time.Millisecond)
	require.False(t, p.Up())
	require.Zero(t, len(done), "a record is not refused for it")
	allow(t, s, user, right{"Topic", topic, []string{"Describe", "Write"}})
	addScram(t, s, user, password)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, done.next(ctx, t))
	require.Eventually(t, p.Up, patience, 10*time.Millisecond)
	require.NotContains(t, log.String(), password)
}

// identitiesShareABudget has two producers with one budget, of which one gives back what the other waits for.
func identitiesShareABudget(t *testing.T, s *secured) {
	topic := newTopic(t, s.Cluster, 1)
	cfg := s.sasl(t, kafka.Plain, root, passwords[root])
	cfg.MaxInFlightBytes = 1000
	first := quietProducer(t, cfg)
	cert, key := s.ca.Client(t, t.TempDir(), root)
	own := s.mutual(t, cert, key)
	own.Budget = first.Budget()
	own.ClientID = "another"
	second := quietProducer(t, own)
	require.Same(t, first.Budget(), second.Budget())
	require.True(t, first.Budget().TryTake(kafka.Destination{}, 1000))
	require.False(t, first.Budget().TryTake(kafka.Destination{}, 1))
	done := newAnswers(1)
	second.Produce(&kafka.Record{Topic: topic, Value: []byte("x"), Reserved: 1000, Owner: done})
	require.NoError(t, done.next(t.Context(), t))
	require.Eventually(t, func() bool { return first.Budget().InUse() == 0 }, 10*time.Second, time.Millisecond)
}

// answers are what became of records and groups of them.
type answers chan error

func newAnswers(n int) answers { return make(answers, n) }

func (a answers) RecordDone(_ *kafka.Record, err error) { a <- err }
func (a answers) GroupDone(_ *kafka.TxGroup, err error) { a <- err }

func (a answers) next(ctx context.Context, t testing.TB) error {
	t.Helper()
	select {
	case err := <-a:
		return err
	case <-ctx.Done():
		return errors.New("no answer")
	}
}

// running runs something until the test ends.
func running(t testing.TB, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }() // ends with ctx
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
}

// quietProducer runs a producer that logs where cfg says.
func quietProducer(t testing.TB, cfg kafka.Config) *kafka.Producer {
	t.Helper()
	p, err := kafka.NewProducer(cfg)
	require.NoError(t, err)
	running(t, p.Run)
	return p
}

// noSecret requires that a text has none of the passwords, and no token.
func noSecret(t testing.TB, text string) {
	t.Helper()
	for user, password := range passwords {
		require.NotContains(t, text, password, "the password of %s", user)
	}
	require.False(t, bytes.Contains([]byte(text), []byte("eyJ")), "a token")
}
