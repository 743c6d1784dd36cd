package test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/rs/zerolog"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"sluice/kafka"
	"sluice/test/cluster"
	"sluice/test/internal/ports"
)

// A right is what a row of the table of ACLs grants. A name that ends in * is a prefix.
type right struct {
	kind, name string
	operations []string
}

// allow gives a principal rights.
func allow(t testing.TB, s *secured, user string, rights ...right) {
	t.Helper()
	for _, r := range rights {
		var ops []kadm.ACLOperation
		for _, name := range r.operations {
			op, err := kmsg.ParseACLOperation(name)
			require.NoError(t, err)
			ops = append(ops, op)
		}
		acl := kadm.NewACLs().Allow("User:" + user).AllowHosts("*").Operations(ops...).ResourcePatternType(kadm.ACLPatternLiteral)
		name := r.name
		if n := len(name) - 1; n > 0 && name[n] == '*' {
			name = name[:n]
			acl.ResourcePatternType(kadm.ACLPatternPrefixed)
		}
		switch r.kind {
		case "Topic":
			acl.Topics(name)
		case "Group":
			acl.Groups(name)
		case "TransactionalId":
			acl.TransactionalIDs(name)
		case "Cluster":
			acl.Clusters()
		default:
			require.Fail(t, "unknown kind of resource", r.kind)
		}
		results, err := s.admin.CreateACLs(t.Context(), acl)
		require.NoError(t, err)
		for _, result := range results {
			require.NoError(t, result.Err)
		}
	}
}

// addScram makes a user for both kinds of SCRAM.
func addScram(t testing.TB, s *secured, user, password string) {
	t.Helper()
	for _, mechanism := range []kadm.ScramMechanism{kadm.ScramSha256, kadm.ScramSha512} {
		altered, err := s.admin.AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{{User: user, Mechanism: mechanism, Iterations: 4096, Password: password}})
		require.NoError(t, err)
		require.NoError(t, altered.Error())
	}
}

// rightsPage is where the rights stand that this test gives, and the rules that need them.
const rightsPage = "../docs/kafka-security.md"

// section gives what stands between a heading of the page and the next.
func section(t testing.TB, heading string) string {
	t.Helper()
	page, err := os.ReadFile(rightsPage)
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(page), "\n## "+heading+"\n")
	require.True(t, found, heading)
	text, _, _ := strings.Cut(rest, "\n## ")
	return text
}

// exampleOf gives the YAML in a section.
func exampleOf(t testing.TB, text string) string {
	t.Helper()
	_, rest, found := strings.Cut(text, "```yaml\n")
	require.True(t, found)
	example, _, _ := strings.Cut(rest, "```")
	return example
}

var rightRow = regexp.MustCompile("(?m)^\\| ([^|]*) \\| (Topic|Group|TransactionalId|Cluster) \\| `([^`]+)` \\| ([A-Za-z, ]+) \\|$")

// rightsOf gives the table in a section: the rights that are always needed, and those to create.
func rightsOf(t testing.TB, text string) (always, create []right) {
	t.Helper()
	for _, row := range rightRow.FindAllStringSubmatch(text, -1) {
		r := right{row[2], row[3], strings.Split(row[4], ", ")}
		if row[4] == "Create" {
			create = append(create, r)
		} else {
			always = append(always, r)
		}
	}
	require.NotEmpty(t, always)
	return always, create
}

// leastRights runs an instance with the rights that the page lists and no other: first as one that creates its topics, and
// then, without the rights to, as one that finds them.
func leastRights(t *testing.T, s *secured) {
	text := section(t, "Rights")
	always, create := rightsOf(t, text)
	require.NotEmpty(t, create)
	const user = "sluice"
	password := passwords[gadget]
	addScram(t, s, user, password)
	allow(t, s, user, append(create, always...)...)
	i := s.instance(t, user, password, "  create_topics: {partitions: 3, replication: 1}\n", exampleOf(t, text))
	i.start()
	i.awaitReady()
	useAll(t, s, i, 1)
	require.Zero(t, i.terminate())
	forbid(t, s, user, "Create")
	i.start()
	i.awaitReady()
	useAll(t, s, i, 2)
	require.NotContains(t, i.log.String(), "not authorized")
	require.NotContains(t, i.log.String(), password)
}

// ruleIdentity has a rule write as another principal, with its rights; that of the instance may not.
func ruleIdentity(t *testing.T, s *secured) {
	const user, heading = "narrow", "Another identity for some rules"
	always, create := rightsOf(t, section(t, "Rights"))
	for _, r := range append(create, always...) {
		if r.name != "plant-*" {
			allow(t, s, user, r)
		}
	}
	addScram(t, s, user, passwords[gadget])
	its, _ := rightsOf(t, section(t, heading))
	allow(t, s, gadget, append(its, right{"Topic", "plant-*", []string{"Create"}})...)
	_, rule, found := strings.Cut(exampleOf(t, section(t, heading)), "publish:\n")
	require.True(t, found)
	i := s.instance(t, user, passwords[gadget], "  create_topics: {partitions: 1, replication: 1}\n"+
		fmt.Sprintf("  identities: {plants: {client_id: sluice-plants, sasl: {mechanism: PLAIN, username: %s, password: %q}}}\n", gadget, passwords[gadget]),
		"publish:\n"+rule)
	i.start()
	i.awaitReady()
	p := dial(t, i.address, "d1", nil)
	_, err := p.PublishWithOptions(t.Context(), withQoS2("plants/own/x"), paho.PublishOptions{Method: paho.PublishMethod_Blocking})
	require.NoError(t, err)
	require.Len(t, records(t, s.Direct(), "plant-own", 1), 1)
	noSecret(t, i.log.String())
}

// notLetIn has an instance with a wrong password end.
func notLetIn(t *testing.T, s *secured) {
	const wrong = "Wrong-Guess-2"
	i := s.instance(t, root, wrong, "", "publish: [{match: \"#\", topic: telemetry}]\n")
	i.start()
	select {
	case <-i.exited:
	case <-time.After(time.Minute):
		require.Fail(t, "it waits")
	}
	require.Equal(t, 1, i.cmd.ProcessState.ExitCode())
	require.Contains(t, i.log.String(), fmt.Sprintf("cannot authenticate at %s with SCRAM-SHA-512 as", s.At(cluster.SASL)[0]))
	require.NotContains(t, i.log.String(), wrong)
}

// instance prepares one that comes in as a user of SCRAM. more belongs to kafka.
func (s *secured) instance(t testing.TB, user, password, more, rules string) *instance {
	t.Helper()
	taken, err := ports.Take(2)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ports.Release(taken)) })
	i := &instance{t: t, program: program, address: taken[0].Addr(), admin: taken[1].Addr(), log: new(lockedBuffer)}
	text := fmt.Sprintf("listeners: [{address: %q}]\nadmin: {address: %q}\nlog: {format: json}\nkafka:\n  brokers: [%s]\n  tls: {ca: %q}\n"+
		"  sasl: {mechanism: SCRAM-SHA-512, username: %s, password: %q}\n%s%s",
		i.address, i.admin, strings.Join(s.At(cluster.SASL), ", "), s.ca.File(t, t.TempDir()), user, password, more, rules)
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	i.args = []string{"serve", "--config", file}
	t.Cleanup(i.cleanup)
	return i
}

// useAll has a device do what the rules are for. It is the round-th time.
func useAll(t *testing.T, s *secured, i *instance, round int) {
	t.Helper()
	p := dial(t, i.address, "d1", nil)
	p.listen(t, "devices/d1/commands", false)
	p.listen(t, "$share/group/devices/+/commands", false)
	for topic, mqttTopic := range map[string]string{"telemetry": "devices/d1/telemetry/temp", "plant-a": "plants/a/b", "unmatched": "other"} {
		_, err := p.PublishWithOptions(t.Context(), withQoS2(mqttTopic), paho.PublishOptions{Method: paho.PublishMethod_Blocking})
		require.NoError(t, err, mqttTopic)
		want := round
		if topic == "telemetry" {
			want += round - 1 // the retained messages of earlier rounds
		}
		require.Len(t, records(t, s.Direct(), topic, want), want)
	}
	retained := withQoS2("devices/d1/telemetry/kept")
	retained.Retain = true
	_, err := p.PublishWithOptions(t.Context(), retained, paho.PublishOptions{Method: paho.PublishMethod_Blocking})
	require.NoError(t, err)
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.Direct()...))
	require.NoError(t, err)
	defer cl.Close()
	require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: "device-commands", Key: []byte("d1"), Value: []byte("go")}).FirstErr())
	require.Eventually(t, func() bool { return len(p.heard("commands")) >= 2 }, patience, 10*time.Millisecond, "the device and the group get the command")
	records(t, s.Direct(), "command-receipts", round)
	p.hangUp()
	records(t, s.Direct(), "presence", 2*round)
}

func withQoS2(topic string) *paho.Publish {
	return &paho.Publish{Topic: topic, QoS: 2, Payload: []byte("x")}
}

// forbid takes all rights to an operation away.
func forbid(t testing.TB, s *secured, user, operation string) {
	t.Helper()
	op, err := kmsg.ParseACLOperation(operation)
	require.NoError(t, err)
	filter := kadm.NewACLs().AnyResource().Allow("User:" + user).AllowHosts().Operations(op).ResourcePatternType(kadm.ACLPatternAny)
	_, err = s.admin.DeleteACLs(t.Context(), filter)
	require.NoError(t, err)
}

// missingRights asks for what a user may not do, each time with one right more.
func missingRights(t *testing.T, s *secured) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cfg := s.sasl(t, kafka.Plain, gadget, passwords[gadget])
	log := new(lockedBuffer)
	cfg.Logger = zerolog.New(log)
	missing, topic := cluster.TopicName(t), newTopic(t, s.Cluster, 1)
	admin, err := kafka.NewAdmin(cfg)
	require.NoError(t, err)
	defer func() { require.NoError(t, admin.Close()) }()
	ensure := func(topic, operation string) {
		t.Helper()
		_, err := admin.Ensure(ctx, []string{topic})
		denied(t, err, topic, operation)
		require.True(t, kafka.Final(err))
	}
	ensure(missing, "Describe")
	allow(t, s, gadget, right{"Topic", missing, []string{"Describe"}}, right{"Topic", topic, []string{"Describe"}})
	ensure(missing, "Create")

	p := quietProducer(t, cfg)
	done := newAnswers(1)
	allow(t, s, gadget, right{"Topic", "elsewhere", []string{"Write"}}) // or it gets no producer ID
	p.Produce(&kafka.Record{Topic: topic, Value: []byte("x"), Owner: done})
	denied(t, done.next(ctx, t), "", "Write")
	require.Eventually(t, func() bool { return logged(log, topic, "Write") }, 10*time.Second, time.Millisecond)

	_, err = admin.EnsureState(ctx, []kafka.StateTopic{{Name: topic, Settings: map[string]string{"cleanup.policy": "compact"}}})
	denied(t, err, topic, "DescribeConfigs")
	r, err := kafka.NewReader(cfg)
	require.NoError(t, err)
	defer r.Close()
	_, err = r.Read(ctx, topic, 0, 0, 1, func(*kafka.Fetched) bool { return true })
	denied(t, err, topic, "Read")
	f, err := kafka.NewFencer(cfg)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	denied(t, f.Fence(ctx, "some-id"), "some-id", "Write")

	g, err := kafka.NewGroup(kafka.GroupConfig{Config: cfg, Name: "some-group", Topics: []string{topic}})
	require.NoError(t, err)
	running(t, g.Run)
	require.Eventually(t, func() bool { return logged(log, "some-group", "Read") }, patience, 5*time.Millisecond)
	c, err := kafka.NewConsumer(kafka.ConsumerConfig{Config: cfg, Topics: []string{topic}, From: kafka.FromBeginning, Handle: func(*kafka.Fetched) {}})
	require.NoError(t, err)
	running(t, c.Run)
	require.Eventually(t, func() bool { return logged(log, topic, "Read") }, patience, 5*time.Millisecond)
	noSecret(t, log.String())
}

// denied requires an error that names the resource and the operation.
func denied(t testing.TB, err error, resource, operation string) {
	t.Helper()
	require.ErrorIs(t, err, kafka.ErrNotAuthorized)
	require.ErrorContains(t, err, "(operation "+operation+")")
	require.ErrorContains(t, err, resource)
}

// logged says whether a line names both.
func logged(log *lockedBuffer, resource, operation string) bool {
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, resource) && strings.Contains(line, "(operation "+operation+")") {
			return true
		}
	}
	return false
}
