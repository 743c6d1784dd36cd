package config

import "time"

// Kafka is the cluster that stores the messages.
type Kafka struct {
	// Brokers are some brokers of the cluster as host:port, at least one; the others are found through them.
	// Name two or three, so that one of them being away at start does not matter.
	Brokers []string `yaml:"brokers"`
	// ClientID names this fleet in the brokers' logs and for their quotas.
	ClientID string `yaml:"client_id"`
	// TLS encrypts the connections to the brokers; `tls: {}` trusts the authorities the system trusts. Left out, they are
	// readable on their way.
	TLS *ClientTLS `yaml:"tls"`
	// SASL is how this process proves itself to the brokers. Left out, it does not, unless by a certificate in `tls`.
	SASL *SASL `yaml:"sasl"`
	// Identities are others, by name, that publish rules may write as (`identity`), so that Kafka's permissions and
	// quotas can differ from rule to rule. A name is made of letters, digits, hyphens and underscores.
	Identities map[string]KafkaIdentity `yaml:"identities"`
	// Producer tunes how records are sent to Kafka. Whatever is set here, a record counts as stored when all
	// in-sync replicas have it.
	Producer Producer `yaml:"producer"`
	// CreateTopics creates Kafka topics that are missing. Leave it out where topics are made by somebody
	// else: then a missing topic that a rule names is an error at start, and a message whose template makes
	// the name of a missing topic is refused. The topics of `sessions` and `retained` are made in any case if they
	// are missing and Kafka allows it, because their settings matter; without this section with 12 partitions
	// and as many copies as there are brokers, three at most. With three, two must have what is acknowledged.
	CreateTopics *CreateTopics `yaml:"create_topics"`
}

// Producer tunes how records are sent to Kafka. Whatever is set here, a record counts as stored when all
// in-sync replicas have it.
type Producer struct {
	// Linger is how long a record waits for others to share its batch. It adds to the time until a device
	// gets its PUBACK. 0s sends at once, which makes small batches and costs more CPU, here and in Kafka.
	Linger time.Duration `yaml:"linger"`
	// Compression of the batches. lz4 costs little and makes JSON a fraction of its size; choose none when
	// payloads are compressed already.
	Compression string `yaml:"compression"`
	// MaxInFlightBytes is the memory for messages that Kafka has not acknowledged yet, of all devices
	// together. When it is spent, no more is read from devices until Kafka has stored some; while Kafka is away, or
	// after 30 s, messages with QoS 0 are dropped and counted. One partition of a Kafka topic gets two thirds of it at
	// most, and partitions that are stuck half of it together. It must hold at least 4 packets of `limits.max_packet_size`.
	MaxInFlightBytes Bytes `yaml:"max_in_flight_bytes"`
}

// CreateTopics needs both numbers: neither can be guessed, and the number of partitions can't be lowered
// later.
type CreateTopics struct {
	// Partitions of a new topic. Records with one key are in one partition, so this bounds how many
	// consumers can share the work. Raising it later moves keys to other partitions.
	Partitions int32 `yaml:"partitions"`
	// Replication is how many brokers keep a copy of a new topic. It can't be more than the cluster has
	// brokers; with 1, the loss of one disk loses acknowledged messages.
	Replication int16 `yaml:"replication"`
}

// KafkaIdentity is who the records of some publish rules are written as. It has a producer, and connections to the
// brokers, of its own.
type KafkaIdentity struct {
	// ClientID names this identity in the brokers' logs and for their quotas. Left out, it is that of `kafka`.
	ClientID string `yaml:"client_id"`
	// TLS is for this identity in place of that of `kafka`. Left out, it is the same.
	TLS *ClientTLS `yaml:"tls"`
	// SASL is how this identity proves itself to the brokers. Left out, it is as in `kafka`.
	SASL *SASL `yaml:"sasl"`
}

// ClientTLS says whom to trust and how to prove oneself. All files are PEM, and are read again for each connection.
type ClientTLS struct {
	// CA is the file of the authorities that may sign the other side's certificate. Left out, they are those the system
	// trusts.
	CA string `yaml:"ca"`
	// Certificate is the file of the certificate that this process shows. Left out, it has none.
	Certificate string `yaml:"certificate"`
	// Key is the file of the certificate's private key, not encrypted.
	Key string `yaml:"key"`
	// ServerName is the name that the other side's certificate must have. Left out, it is the host of the address.
	ServerName string `yaml:"server_name"`
}

// The words of SASL.Mechanism.
const (
	MechanismPlain       = "PLAIN"
	MechanismScramSHA256 = "SCRAM-SHA-256"
	MechanismScramSHA512 = "SCRAM-SHA-512"
	MechanismOAuthBearer = "OAUTHBEARER"
)

// SASL says who this process is for the brokers. PLAIN and the SCRAM mechanisms need `username` and `password`,
// OAUTHBEARER needs `token_url`, `client_id` and `client_secret`. PLAIN sends the password as it is, and OAUTHBEARER the
// token: use them with `tls` only.
type SASL struct {
	// Mechanism is one that the brokers have enabled.
	Mechanism string `yaml:"mechanism"`
	// Username is the name of the user in Kafka.
	Username string `yaml:"username"`
	// Password is that of the user; take it from the environment.
	Password Secret `yaml:"password"`
	// TokenURL is where OAUTHBEARER gets its tokens, by the client credentials grant of OAuth 2: an https URL; http is
	// allowed to this machine only.
	TokenURL string `yaml:"token_url"`
	// TokenTLS is for an https `token_url`. Left out, the authorities the system trusts are trusted.
	TokenTLS *ClientTLS `yaml:"token_tls"`
	// ClientID is the OAuth 2 client of this process.
	ClientID string `yaml:"client_id"`
	// ClientSecret is the secret of the OAuth 2 client; take it from the environment.
	ClientSecret Secret `yaml:"client_secret"`
	// Scopes are asked for with the token. Left out, the token endpoint decides.
	Scopes []string `yaml:"scopes"`
}
