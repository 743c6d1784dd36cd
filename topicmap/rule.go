package topicmap

// DefaultMaxTopics is how many different Kafka topics one topic template may create when [Rule.MaxTopics] is 0.
const DefaultMaxTopics = 1000

// defaultKey is the key template of a rule that names none: one device, one partition, one order.
const defaultKey = "{mqtt.client_id}"

// Rule is one entry of publish:, as the user wrote it.
//
// A template is text with names in braces; {{ and }} stand for the braces themselves. The names are the captures of
// the rule and mqtt.topic, mqtt.client_id, mqtt.username, mqtt.user.NAME (a user property, the first of that name),
// cert.cn and payload.PATH (a path into a JSON payload, such as a.b.0.c; objects, arrays and null are no value).
type Rule struct {
	// Match is an MQTT topic filter in which {name} captures one level and {name...}, at the end, all the others.
	// It matches what the filter with + and # in their places matches. Exactly one of Match and Regex is set.
	Match string
	// Regex is an RE2 expression with named groups, (?P<name>…), that matches from ^ to $.
	Regex string
	// Topic is the template of the Kafka topic.
	Topic string
	// Key is the template of the record's key: nil means {mqtt.client_id}, the empty string means no key.
	Key *string
	// Headers become record headers in this order. One whose value is missing in a message is left out.
	Headers []Field
	// When holds conditions: Name is a name as in a template, without braces, and Value what it must be equal to.
	// All must hold, or the rule does not match. A missing value is equal to nothing.
	When []Field
	// MaxTopics bounds the different Kafka topics that Topic may make; 0 means [DefaultMaxTopics]. Names of which it is
	// not known yet whether there is such a topic count if Creates is set, and names that there is none of don't.
	MaxTopics int
	// Creates says that topics which are missing are created.
	Creates bool
}

// Field is a name with its value; which of the two is a template depends on the place.
type Field struct{ Name, Value string }

// maxTopics is the bound that holds for the rule.
func (r *Rule) maxTopics() int {
	if r.MaxTopics == 0 {
		return DefaultMaxTopics
	}
	return r.MaxTopics
}

// keyText is the template of the key, and whether records of the rule have one.
func (r *Rule) keyText() (text string, ok bool) {
	if r.Key == nil {
		return defaultKey, true
	}
	return *r.Key, *r.Key != ""
}
