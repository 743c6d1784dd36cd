package topicmap

// A CommandRule is one entry of commands:, as the user wrote it.
//
// Templates are written as in a [Rule]. Their names are the captures of Pattern and key (the record's key),
// header.NAME (the first header of that name, which may hold dots), kafka.topic and payload.PATH.
type CommandRule struct {
	// Topic is the Kafka topic whose records the rule takes. Exactly one of Topic and Pattern is set.
	Topic string
	// Pattern is an RE2 expression with named groups, (?P<name>…), that matches Kafka topics from ^ to $. It never
	// matches an internal topic.
	Pattern string
	// Publish is the template of the MQTT topic.
	Publish string
	// ContentType, ResponseTopic and CorrelationData are templates of the properties of that name; the empty string
	// means none. One whose value is missing in a record is left out.
	ContentType, ResponseTopic, CorrelationData string
	// Client is the template of the one client ID that gets the command; the empty string means everybody who
	// subscribed to the topic.
	Client string
	// When holds conditions, as in a [Rule].
	When []Field
}

// A Record is what command rules may look at. Its slices are borrowed for the one call of [CommandMap.Route].
type Record struct {
	Topic   string     // the Kafka topic
	Key     []byte     // nil: no key, which is a missing value
	Value   []byte     // nil: no value
	Headers []Property // a header whose value is nil has none: a missing value
}

// A CommandRoute is where a command goes. The zero value is ready; hand it to [CommandMap.Route] again and again, from
// one goroutine at a time. Its slices are valid till its next use and must not be changed. After an error only the
// error counts.
type CommandRoute struct {
	Rule   int    // the index of the rule that matched
	Topic  []byte // the MQTT topic: a legal Topic Name
	Client []byte // nil: the rule names no client; else not empty

	// The properties: nil when the rule has none, or when a value of its template is missing in the record.
	ContentType, ResponseTopic, CorrelationData []byte

	scratch
}
