package config

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A fact is what the type of a field does not say. Parse, the manual and the JSON Schema read it from here.
type fact struct {
	required bool
	instead  string   // of a required field: another one of its section that may stand in its place, with an entry
	empty    bool     // a list may have no entry
	single   bool     // a list of one mapping may be that mapping
	words    []string // the only values; nil: any
	min, max int64    // of numbers, sizes (bytes) and durations (nanoseconds); both 0: any
	whole    bool     // durations: whole seconds only, because MQTT counts in them
}

// maxSessionExpiry is the longest Session Expiry Interval of MQTT 5 that ends; 0xFFFFFFFF means never.
const maxSessionExpiry = (math.MaxUint32 - 1) * time.Second

// maxMessageExpiry is the longest Message Expiry Interval.
const maxMessageExpiry = math.MaxUint32 * time.Second

// maxPacket is the largest packet that MQTT can express [MQTT-1.5.5].
const maxPacket = 268_435_455

// mechanisms are those of SASL.
var mechanisms = []string{MechanismPlain, MechanismScramSHA256, MechanismScramSHA512, MechanismOAuthBearer}

// algorithms are the signatures of tokens.
var algorithms = []string{"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// rights are the words of the ACL.
var rights = []string{RightPublish, RightSubscribe, RightWill, RightRetain}

// facts are those of each field, by its path without list indices.
var facts = map[string]fact{
	"listeners":                          {required: true},
	"listeners.address":                  {required: true},
	"listeners.protocol":                 {words: []string{ProtocolMQTT, ProtocolWebSocket}},
	"listeners.tls.certificate":          {required: true},
	"listeners.tls.key":                  {required: true},
	"listeners.tls.client_auth":          {words: []string{ClientAuthNone, ClientAuthRequest, ClientAuthRequire}},
	"listeners.tls.identity":             {words: []string{"cn", "san_dns", "san_email", "san_uri"}},
	"listeners.tls.min_version":          {words: []string{"1.2", "1.3"}},
	"listeners.proxy_protocol.trusted":   {required: true},
	"kafka":                              {required: true},
	"kafka.brokers":                      {required: true},
	"kafka.sasl.mechanism":               {required: true, words: mechanisms},
	"kafka.identities.sasl.mechanism":    {required: true, words: mechanisms},
	"kafka.producer.linger":              span(0, 10*time.Second),
	"kafka.producer.compression":         {words: []string{"none", "lz4", "snappy", "zstd", "gzip"}},
	"kafka.producer.max_in_flight_bytes": {min: int64(4 * kib), max: int64(tib)},
	"kafka.create_topics.partitions":     {required: true, min: 1, max: 100_000},
	"kafka.create_topics.replication":    {required: true, min: 1, max: math.MaxInt16},
	"publish":                            {required: true, instead: "commands"},
	"publish.topic":                      {required: true},
	"publish.max_topics":                 {min: 1, max: 1_000_000},
	"commands":                           {empty: true},
	"commands.publish":                   {required: true},
	"commands.qos":                       {min: 0, max: 2},
	"commands.expiry":                    seconds(0, maxMessageExpiry),
	"commands.offline":                   {words: []string{OfflineKeep, OfflineDrop}},
	"unmatched.dead_letter":              {required: true},
	"refused.dead_letter":                {required: true},
	"auth":                               {single: true},
	"auth.jwt.algorithms":                {words: algorithms},
	"auth.jwt.from":                      {words: []string{FromPassword, FromUsername}},
	"auth.jwt.leeway":                    span(0, 10*time.Minute),
	"auth.http.url":                      {required: true},
	"auth.http.timeout":                  span(10*time.Millisecond, time.Minute),
	"auth.http.max_concurrent":           {min: 1, max: 10_000},
	"auth.http.cache":                    span(0, 24*time.Hour),
	"auth.http.cache_refused":            span(0, 24*time.Hour),
	"auth.http.cache_size":               {min: 1, max: 1_000_000},
	"acl.allow":                          {words: rights},
	"acl.deny":                           {words: rights},
	"acl.filter":                         {required: true},
	"sessions.claim":                     {words: []string{ClaimAlways, ClaimStored}},
	"sessions.max_expiry":                seconds(0, maxSessionExpiry),
	"sessions.dead_after":                span(8*time.Second, time.Hour),
	"retained.messages":                  {min: 1, max: 100_000_000},
	"retained.memory":                    {min: int64(kib), max: int64(tib)},
	"limits.max_packet_size":             {min: int64(kib), max: maxPacket},
	"limits.receive_maximum":             {min: 1, max: math.MaxUint16},
	"limits.keep_alive_max":              seconds(0, math.MaxUint16*time.Second),
	"limits.connect_timeout":             span(100*time.Millisecond, 10*time.Minute),
	"limits.topic_alias_maximum":         {min: 0, max: math.MaxUint16},
	"limits.shutdown_timeout":            span(100*time.Millisecond, time.Hour),
	"limits.commands_in_flight":          {min: 1, max: math.MaxUint16},
	"limits.commands_queued":             {min: 1, max: 1_000_000},
	"limits.commands_memory":             {min: int64(4 * kib), max: int64(tib)},
	"limits.subscriptions":               {min: 1, max: 100_000},
	"limits.subscriptions_memory":        {min: int64(4 * kib), max: int64(tib)},
	"limits.shared_subscriptions":        {min: 1, max: 10_000},
	"limits.shares_per_device":           {min: 1, max: 10_000},
	"limits.connections":                 {min: 0, max: 10_000_000},
	"limits.connections_per_address":     {min: 0, max: 10_000_000},
	"limits.connects_per_second":         {min: 0, max: 1_000_000},
	"limits.publishes_per_second":        {min: 0, max: 1_000_000},
	"limits.publish_bytes_per_second":    {min: 0, max: int64(tib)},
	"limits.over_rate":                   {words: []string{OverRateDelay, OverRateDisconnect}},
	"limits.topic_levels":                {min: 1, max: math.MaxUint16},
	"limits.user_properties":             {min: 1, max: math.MaxUint16},
	"limits.sessions":                    {min: 0, max: 100_000_000},
	"limits.sessions_memory":             {min: int64(4 * kib), max: int64(tib)},
	"limits.failed_logins":               {min: 0, max: 1_000_000},
	"log.level":                          {words: []string{"trace", "debug", "info", "warn", "error"}},
	"log.format":                         {words: []string{"console", "json"}},
}

func span(from, to time.Duration) fact { return fact{min: int64(from), max: int64(to)} }

func seconds(from, to time.Duration) fact {
	f := span(from, to)
	f.whole = true
	return f
}

// factOf gives what is known of the field at path, such as publish[2].topic.
func factOf(path string) fact { return facts[withoutIndices(path)] }

// withoutIndices gives the path without what is in brackets, "" if that is not closed.
func withoutIndices(path string) string {
	for {
		open := strings.IndexByte(path, '[')
		if open < 0 {
			return path
		}
		length := strings.IndexByte(path[open:], ']')
		if length < 0 {
			return ""
		}
		path = path[:open] + path[open+length+1:]
	}
}

// neverEmpty are the sections and fields whose texts are left out or say something. An empty one, as from an empty
// variable of the environment, would weaken what it is there to protect.
var neverEmpty = []string{"listeners.path", "listeners.origins", "listeners.tls.", "kafka.client_id", "kafka.tls.", "kafka.sasl.", "kafka.identities.",
	"publish.identity", "auth.", "acl."}

// mustSay tells whether the field at path may not be an empty text.
func mustSay(path string) bool {
	path = withoutIndices(path)
	return slices.ContainsFunc(neverEmpty, func(begin string) bool { return strings.HasPrefix(path, begin) })
}

// ranged tells whether the field has a range.
func (f fact) ranged() bool { return f.min != 0 || f.max != 0 }

// bounds writes the range in the words of the file: a duration, a size or a number.
func (f fact) bounds(example any) (from, to string) {
	return show(example, f.min), show(example, f.max)
}

// show writes n as a value of the type of example.
func show(example any, n int64) string {
	switch example.(type) {
	case time.Duration:
		return shortDuration(time.Duration(n))
	case Bytes:
		return Bytes(n).String()
	}
	return strconv.FormatInt(n, 10)
}

// shortDuration writes d without the zeros Go's notation ends in: 24h, not 24h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
