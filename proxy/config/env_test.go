package config

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func environment(vars map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, ok := vars[name]
		return value, ok
	}
}

func TestEnvironmentReplacesReferences(t *testing.T) {
	env := environment(map[string]string{"HOST": "kafka", "PORT": "9092", "EMPTY": "", "N": "7", "SIZE": "1MiB", "WAIT": "3s", "LEVEL": "debug",
		"T": "{b}", "DROP": "drop"})
	cfg, err := Parse("sluice.yaml", []byte(`listeners:
  - address: ${EMPTY}:1883
kafka:
  brokers: ["${HOST}:${PORT}"]
  create_topics: {partitions: "${N}", replication: "${N}"}
publish:
  - match: a/{b}
    topic: x-${HOST}${EMPTY}
    key: "${T}/$$/$/$$"
    headers: {env: "$${{PORT}}"}
unmatched: ${DROP}
limits:
  max_packet_size: ${SIZE}
  connect_timeout: ${WAIT}
  receive_maximum: ${N}
log: {level: "${LEVEL}"}
`), env)
	require.NoError(t, err)
	require.Equal(t, ":1883", cfg.Listeners[0].Address)
	require.Equal(t, []string{"kafka:9092"}, cfg.Kafka.Brokers)
	require.Equal(t, &CreateTopics{7, 7}, cfg.Kafka.CreateTopics)
	require.Equal(t, "x-kafka", cfg.Publish[0].Topic)
	require.Equal(t, "{b}/$$/$/$$", *cfg.Publish[0].Key)
	require.Equal(t, "${{PORT}}", cfg.Publish[0].Headers[0].Value)
	require.Equal(t, Drop, cfg.Unmatched.Mode)
	require.Equal(t, mib, cfg.Limits.MaxPacketSize)
	require.Equal(t, "3s", cfg.Limits.ConnectTimeout.String())
	require.Equal(t, 7, cfg.Limits.ReceiveMaximum)
	require.Equal(t, "debug", cfg.Log.Level)
}

// TestValuesOfVariablesAreNotReadAgain: a value is put in as it is, and what it has in it is no reference.
func TestValuesOfVariablesAreNotReadAgain(t *testing.T) {
	env := environment(map[string]string{"A": "${B}", "B": "b"})
	refuseEnv(t, base+"    key: \"$${B}${A}\"\n", env, `8:14: key: unknown name "B"`, `8:16: key: unknown name "B"`)
}

func TestMissingVariablesAreFaultsWithTheirPlaces(t *testing.T) {
	refuse(t, strings.Replace(base, "localhost:9092", `"${HOST}:${PORT}"`, 1),
		"4:14: environment variable HOST is not set", "4:22: environment variable PORT is not set")
	refuse(t, base+"limits: {receive_maximum: \"${N}\"}\n", "8:28: environment variable N is not set")
	refuse(t, base+"    key: |\n      a ${N}\n", "8:10: environment variable N is not set")
	refuse(t, base+"    key: ä${N}\n", "8:11: environment variable N is not set")
	cfg, err := Parse("x", []byte(base+"    key: ${N}\n"), nil)
	require.Nil(t, cfg)
	require.ErrorContains(t, err, "environment variable N is not set")
}

func TestReferencesThatAreNoneAreFaults(t *testing.T) {
	for _, ref := range []string{"${}", "${1}", "${a-b}", "${a b}", "${ä}", "${A"} {
		refuse(t, base+"    key: '"+ref+"'\n", "8:11: this ${ is not ${NAME} with a name of letters")
	}
}

// TestFaultsBehindAVariableKeepTheirPlace: the value of a variable may be longer or shorter than its name.
func TestFaultsBehindAVariableKeepTheirPlace(t *testing.T) {
	env := environment(map[string]string{"LONG": "very-long-text-of-many-characters", "BAD": "a b", "N": "x", "PORT": "99999"})
	refuseEnv(t, base+"    key: '${LONG}{nope}'\n", env, `8:19: key: unknown name "nope"`)
	refuseEnv(t, strings.Replace(base, "topic: t", "topic: t${LONG}${BAD}x", 1), env, "7:20: topic: illegal Kafka topic name")
	refuseEnv(t, strings.Replace(base, "1883", "${PORT}", 1), env, `2:22: address: the port must be 0 to 65535, not "99999"`)
	refuseEnv(t, base+"limits: {receive_maximum: '${N}', max_packet_size: '${N}', connect_timeout: '${N}'}\n", env,
		`8:27: receive_maximum must be a whole number in decimal digits, not "x"`, `8:52: max_packet_size: "x" is no size`, `8:77: connect_timeout: "x" is no duration`)
}
