package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/topicmap"
)

func TestWhatAFileLeavesOutIsTheDefault(t *testing.T) {
	want := Default()
	want.Listeners = []Listener{{Address: "0.0.0.0:1883", Protocol: "mqtt"}}
	want.Kafka.Brokers = []string{"localhost:9092"}
	want.Publish = []Rule{{Match: "a/{b}", Topic: "t", MaxTopics: topicmap.DefaultMaxTopics}}
	require.Equal(t, &want, parse(t, base))
}

func TestEveryFieldIsDecoded(t *testing.T) {
	key := "{device}"
	none := ""
	want := &Config{
		Listeners: []Listener{
			{Address: "0.0.0.0:1883", Protocol: "mqtt"},
			{"[::1]:0", "websocket", "/ws/x", []string{"https://a.example", "*"}, &ListenerTLS{"s.pem", "s.key", "ca.pem", "require", "crl.pem", "san_uri", "1.3"},
				&ProxyProtocol{[]string{"10.0.0.0/8", "::1"}}},
			{Address: "h:1", Protocol: "mqtt", TLS: &ListenerTLS{Certificate: "s.pem", Key: "s.key", ClientAuth: "none", Identity: "cn", MinVersion: "1.2"}},
		},
		Kafka: Kafka{
			Brokers:      []string{"kafka-1:9092", "10.0.0.2:9093"},
			Producer:     Producer{Linger: 7 * time.Millisecond, Compression: "zstd", MaxInFlightBytes: 1e9},
			CreateTopics: &CreateTopics{Partitions: 6, Replication: 2},
			ClientID:     "c",
			TLS:          &ClientTLS{"ca.pem", "c.pem", "c.key", "kafka"},
			SASL:         &SASL{Mechanism: "SCRAM-SHA-256", Username: "u", Password: "p"},
			Identities: map[string]KafkaIdentity{"plants-1": {ClientID: "x", TLS: &ClientTLS{},
				SASL: &SASL{Mechanism: "OAUTHBEARER", TokenURL: "https://localhost/t", TokenTLS: &ClientTLS{CA: "t.pem"}, ClientID: "i", ClientSecret: "s", Scopes: []string{"a", "b"}}}, "b": {ClientID: "y"}},
		},
		Publish: []Rule{
			{Match: "devices/{device}/#", Topic: "d", Identity: "plants-1", Key: &key, Headers: []topicmap.Field{{Name: "z", Value: "{device}"}, {Name: "a", Value: "1"}},
				When: []topicmap.Field{{Name: "mqtt.user.kind", Value: "meter"}}, MaxTopics: 5},
			{Regex: `^x/(?P<y>\d+)$`, Topic: "x-{y}", Key: &none, MaxTopics: 1000, ExactlyOnce: true},
		},
		Commands: []Command{
			{Topic: "cmd", Publish: "d/{key}", QoS: 2, Retain: true, Expiry: time.Minute, ContentType: "text/plain", ResponseTopic: "d/{key}/r",
				CorrelationData: "{header.id}", When: []topicmap.Field{{Name: "header.a.b", Value: "x"}, {Name: "key", Value: "k"}},
				Client: "{key}", Offline: "drop", Receipts: "receipts"},
			{Pattern: `^c-(?P<p>\d+)$`, Publish: "{p}", QoS: 1, Offline: "keep"},
		},
		Unmatched: Unmatched{DeadLetter, "dead"},
		Sessions:  Sessions{Topic: "sluice-s", Ledger: "sluice-l", Claim: "stored", MaxExpiry: 90 * time.Minute, DeadAfter: 20 * time.Second},
		Presence:  Presence{"presence"},
		Retained:  Retained{Topic: "sluice-r", Messages: 5, Memory: 1 << 30},
		Shares:    []string{"workers", "team-*"},
		Limits: Limits{MaxPacketSize: 1 << 20, ReceiveMaximum: 65535, KeepAliveMax: 65535 * time.Second, ConnectTimeout: 500 * time.Millisecond,
			TopicAliasMaximum: 5, ShutdownTimeout: time.Minute, CommandsInFlight: 65535, CommandsQueued: 1, CommandsMemory: 1e6, Subscriptions: 7, SubscriptionsMemory: 5e6, SharedSubscriptions: 3, SharesPerDevice: 2,
			Connections: 1, ConnectionsPerAddress: 2, ConnectsPerSecond: 3, PublishesPerSecond: 4, PublishBytesPerSecond: 5 * kib, OverRate: "disconnect", TopicLevels: 6,
			UserProperties: 7, Sessions: 8, SessionsMemory: 9 * kib, FailedLogins: 9},
		Auth: []AuthMethod{
			{File: "users.yaml"},
			{JWT: &JWT{JWKS: "https://x/jwks", TLS: &ClientTLS{}, Algorithms: []string{"RS256", "ES256"}, Issuer: "i", Audience: "a", Identity: "device", From: "username", Leeway: 0}},
			{JWT: &JWT{Key: "k.pem", Identity: "sub", From: "password", Leeway: 30 * time.Second}},
			{MTLS: &MTLS{}},
			{HTTP: &HTTPAuth{"https://x/auth", time.Second, 1, 2 * time.Second, 3 * time.Second, 4, &ClientTLS{CA: "ca.pem"}}},
			{HTTP: &HTTPAuth{URL: "http://[::1]:1/", Timeout: 3 * time.Second, MaxConcurrent: 64, Cache: time.Minute, CacheRefused: 5 * time.Second, CacheSize: 10000}},
		},
		ACL: []ACLRule{
			{Allow: []string{"publish", "subscribe", "will", "retain"}, Filter: "d/{mqtt.client_id}/#", Username: "u", ClientID: "c"},
			{Deny: []string{"publish"}, Filter: "#"},
		},
		Admin: Admin{""},
		Log:   Log{"warn", "json"},
	}
	require.Equal(t, want, parse(t, `# a comment
listeners:
- address: "0.0.0.0:1883"
- {address: '[::1]:0', protocol: websocket, path: /ws/x, origins: ["https://a.example", "*"], proxy_protocol: {trusted: [10.0.0.0/8, "::1"]},
   tls: {certificate: s.pem, key: s.key, client_ca: ca.pem, client_auth: require, crl: crl.pem, identity: san_uri, min_version: "1.3"}}
- {address: h:1, tls: {certificate: s.pem, key: s.key}}
kafka:
  brokers:
    - kafka-1:9092   # the first
    - 10.0.0.2:9093
  producer: {linger: 7ms, compression: zstd, max_in_flight_bytes: 1GB}
  create_topics: {partitions: 6, replication: 2}
  client_id: c
  tls: {ca: ca.pem, certificate: c.pem, key: c.key, server_name: kafka}
  sasl: {mechanism: SCRAM-SHA-256, username: u, password: p}
  identities:
    plants-1:
      client_id: x
      tls: {}
      sasl: {mechanism: OAUTHBEARER, token_url: https://localhost/t, token_tls: {ca: t.pem}, client_id: i, client_secret: s, scopes: [a, b]}
    b: {client_id: y}
publish:
- match: devices/{device}/#
  topic: d
  identity: plants-1
  key: "{device}"
  headers:
    z: "{device}"
    a: "1"
  when: {mqtt.user.kind: meter}
  max_topics: 5
- regex: '^x/(?P<y>\d+)$'
  exactly_once: true
  topic: >-
    x-{y}
  key: ""
commands:
- topic: cmd
  publish: d/{key}
  qos: 2
  retain: true
  expiry: 1m
  content_type: text/plain
  response_topic: d/{key}/r
  correlation_data: "{header.id}"
  when: {header.a.b: x, key: k}
  client: "{key}"
  offline: drop
  receipts: receipts
- {pattern: '^c-(?P<p>\d+)$', publish: "{p}"}
unmatched:
  dead_letter: dead
sessions: {topic: sluice-s, ledger: sluice-l, claim: stored, max_expiry: 1h30m, dead_after: 20s}
presence: {topic: presence}
retained: {topic: sluice-r, messages: 5, memory: 1GiB}
shares: [workers, "team-*"]
limits:
  max_packet_size: 1048576
  receive_maximum: 65535
  keep_alive_max: 65535s
  connect_timeout: .5s
  topic_alias_maximum: 5
  shutdown_timeout: 1m
  commands_in_flight: 65535
  commands_queued: 1
  commands_memory: 1MB
  subscriptions: 7
  subscriptions_memory: 5MB
  shared_subscriptions: 3
  shares_per_device: 2
  connections: 1
  connections_per_address: 2
  connects_per_second: 3
  publishes_per_second: 4
  publish_bytes_per_second: 5KiB
  over_rate: disconnect
  topic_levels: 6
  user_properties: 7
  sessions: 8
  sessions_memory: 9KiB
  failed_logins: 9
auth:
- file: users.yaml
- jwt: {jwks: "https://x/jwks", tls: {}, algorithms: [RS256, ES256], issuer: i, audience: a, identity: device, from: username, leeway: 0}
- jwt: {key: k.pem}
- mtls: {}
- http: {url: "https://x/auth", timeout: 1s, max_concurrent: 1, cache: 2s, cache_refused: 3s, cache_size: 4, tls: {ca: ca.pem}}
- http: {url: "http://[::1]:1/"}
acl:
- {allow: [publish, subscribe, will, retain], filter: "d/{mqtt.client_id}/#", username: u, client_id: c}
- deny: [publish]
  filter: "#"
admin: {address: ""}
log: {level: warn, format: json}
`))
}

func TestSpellingsThatMeanTheSame(t *testing.T) {
	want := parse(t, base)
	same := func(src string) {
		t.Helper()
		require.Equal(t, want, parse(t, src))
	}
	same("\uFEFF" + base)
	same(strings.ReplaceAll(base, "\n", "\r\n"))
	same("---\n" + base + "...\n")
	same("# comment\n\n" + base + "\n# comment\n")
	same(strings.ReplaceAll(base, "topic: t", `"topic": 't'`))
	same(`{"listeners": [{"address": "0.0.0.0:1883"}], "kafka": {"brokers": ["localhost:9092"]}, "publish": [{"match": "a/{b}", "topic": "t"}]}`)
	same(base + "unmatched: reject\nadmin: {address: 127.0.0.1:8080}\n")
	same(base + "sessions: {}\nlimits: {}\nlog: {}\n")
}

func TestUnmatchedWords(t *testing.T) {
	require.Equal(t, Unmatched{Mode: Drop}, parse(t, base+"unmatched: drop\n").Unmatched)
	require.Equal(t, Unmatched{Mode: Reject}, parse(t, base+"unmatched: 'reject'\n").Unmatched)
	require.Equal(t, Unmatched{DeadLetter, "x"}, parse(t, base+"unmatched: {dead_letter: x}\n").Unmatched)
	require.Equal(t, Refused{}, parse(t, base).Refused)
	require.Equal(t, Refused{}, parse(t, base+"refused: close\n").Refused)
	require.Equal(t, Refused{Acknowledge: true}, parse(t, base+"refused: acknowledge\n").Refused)
	require.Equal(t, Refused{DeadLetter: "x"}, parse(t, base+"refused: {dead_letter: x}\n").Refused)
}

func TestKeyAbsentAndEmptyDiffer(t *testing.T) {
	require.Nil(t, parse(t, base).Publish[0].Key)
	require.Equal(t, "", *parse(t, base+"    key: \"\"\n").Publish[0].Key)
	require.Equal(t, "", *parse(t, base+"    key: ''\n").Publish[0].Key)
}

func TestHeadersKeepTheOrderOfTheFile(t *testing.T) {
	headers := parse(t, base+"    headers: {z: '1', a: '2', m: '3', mqtt: '4', b.c: '5'}\n").Publish[0].Headers
	require.Equal(t, []topicmap.Field{{Name: "z", Value: "1"}, {Name: "a", Value: "2"}, {Name: "m", Value: "3"}, {Name: "mqtt", Value: "4"}, {Name: "b.c", Value: "5"}}, headers)
}

func TestRulesOfAParsedFileCompile(t *testing.T) {
	m, err := parse(t, base).Rules()
	require.NoError(t, err)
	require.Equal(t, []string{"t"}, m.Topics())
}

func TestParsedConfigsShareNothing(t *testing.T) {
	a, b := parse(t, base), parse(t, base)
	a.Publish[0].Topic, a.Kafka.Brokers[0] = "x", "y"
	require.Equal(t, parse(t, base), b)
}

func TestLoadNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.yaml")
	_, err := Load(path, noEnv)
	require.ErrorIs(t, err, os.ErrNotExist)

	require.NoError(t, os.WriteFile(path, []byte("x: 1\n"+base), 0o600))
	_, err = Load(path, noEnv)
	var fault *Error
	require.True(t, errors.As(err, &fault))
	require.Equal(t, path, fault.File)

	require.NoError(t, os.WriteFile(path, []byte(base), 0o600))
	cfg, err := Load(path, noEnv)
	require.NoError(t, err)
	require.Equal(t, parse(t, base), cfg)
}
