package topicmap

// Message is what rules may look at. Its slices are borrowed for the one call of [Map.Route]. An empty ClientID,
// Username or CertCN is a missing value.
type Message struct {
	Topic          []byte // the MQTT topic, valid and without wildcards as MQTT demands
	ClientID       string
	Username       string
	Payload        []byte
	UserProperties []Property
	CertCN         string // the common name of the client's certificate
}

// Property is an MQTT 5 user property.
type Property struct{ Key, Value []byte }

// Route is where a message goes. The zero value is ready; hand it to [Map.Route] again and again, from one
// goroutine at a time. Key and the header values lie in the Route itself and are valid till its next use; they must not be
// changed. After an error only the error counts.
type Route struct {
	Rule    int    // the index of the rule that matched
	Topic   string // the Kafka topic; stays valid
	Tried   bool   // it is not known yet whether there is such a topic: [Map.Settle] is to be told
	Key     []byte
	HasKey  bool // false: the record has no key. True with an empty Key: the key is the empty string.
	Headers []Header

	hits [2]hit // room for the regexes that match
	scratch
}

// Header is a record header.
type Header struct {
	Name  string
	Value []byte
}

// maxKeptScratch is how much of a Route's buffer survives a message: one big payload value must not stay with the
// connection for ever.
const maxKeptScratch = 16 << 10

// reset forgets the message before and keeps the memory.
func (r *Route) reset() {
	r.Rule, r.Topic, r.Tried, r.Key, r.HasKey, r.Headers = 0, "", false, nil, false, r.Headers[:0]
	r.scratch.reset()
}

// scratch is the memory of a Route, or CommandRoute, that is used again and again.
type scratch struct {
	levels []int  // where each level of the MQTT topic begins, as far as any filter looks
	groups []int  // what the matching regex captured, as regexp's FindSubmatchIndex returns it
	buf    []byte // what templates rendered; never nil, so that no piece of it is
}

func (sc *scratch) reset() {
	sc.levels, sc.groups, sc.buf = sc.levels[:0], nil, sc.buf[:0]
	if sc.buf == nil || cap(sc.buf) > maxKeptScratch {
		sc.buf = []byte{}
	}
}
