package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"sluice/topicmap"
)

// check finds what is wrong between fields, and in texts that have a syntax of their own. Fields that are bad
// already are left alone: one fault, one error.
func (d *decoder) check(c *Config) {
	d.checkListeners(c)
	d.checkKafka(&c.Kafka)
	d.checkMemory(c)
	d.checkDeadLetter("unmatched.dead_letter", c.Unmatched.DeadLetter)
	d.checkDeadLetter("refused.dead_letter", c.Refused.DeadLetter)
	d.checkState(c)
	d.checkRules(c)
	d.checkCommands(c)
	d.checkAuth(c)
	d.checkACL(c.ACL)
	for i, name := range c.Shares {
		d.checkShare(fmt.Sprintf("shares[%d]", i), name)
	}
}

// report reports a fault at byte offset of the text at path, unless that field has one already.
func (d *decoder) report(path string, offset int, format string, args ...any) {
	p := d.places[path]
	if p == nil { // nothing in the file to point at
		p = d.places[""]
	} else if p.bad {
		return
	}
	d.fail(path, p.byteAt(offset), format, args...)
}

// byteAt is where the byte at offset of the value stands, or just behind the last one; the beginning of the
// value for any other offset.
func (p *place) byteAt(offset int) pos {
	switch n := len(p.at); {
	case offset >= 0 && offset < n:
		return p.at[offset]
	case offset > 0 && offset == n:
		last := p.at[n-1]
		return pos{last.line, last.column + 1}
	}
	return p.value
}

// An addressError is what is wrong with a host:port, and at which byte.
type addressError struct {
	offset int
	text   string
}

// checkAddress checks the syntax of host:port; fixed demands a host and a port other than 0.
func checkAddress(address string, fixed bool) *addressError {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return &addressError{-1, fmt.Sprintf("%q is no host:port", address)}
	}
	if fixed && host == "" {
		return &addressError{-1, fmt.Sprintf("%q lacks the host before the port", address)}
	}
	if !legalHost(host) {
		return &addressError{-1, fmt.Sprintf("%q is no host name and no IP address", host)}
	}
	lowest := 0
	if fixed {
		lowest = 1
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < lowest || n > 65535 || strconv.Itoa(n) != port {
		return &addressError{len(address) - len(port), fmt.Sprintf("the port must be %d to 65535, not %q", lowest, port)}
	}
	return nil
}

// legalHost accepts "", IP addresses, and names of letters, digits, hyphens, underscores and dots.
func legalHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil || host == "" {
		return true
	}
	if len(host) > 253 || strings.Trim(host, "0123456789.") == "" {
		return false
	}
	for _, label := range strings.Split(strings.TrimSuffix(host, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' {
			return false
		}
	}
	return strings.Trim(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == ""
}

// checkListeners checks what this process listens on. Port 0 is a free port and never twice the same.
func (d *decoder) checkListeners(c *Config) {
	const admin = "admin.address"
	taken := make(map[string]string)
	inFile := d.places[admin] != nil
	if !inFile { // it can't be pointed at, so the listener that takes it is
		d.checkBound(admin, c.Admin.Address, taken)
	}
	for i := range c.Listeners {
		path := fmt.Sprintf("listeners[%d]", i)
		d.checkBound(path+".address", c.Listeners[i].Address, taken)
		d.checkListener(path, &c.Listeners[i])
	}
	if inFile && c.Admin.Address != "" {
		d.checkBound(admin, c.Admin.Address, taken)
	}
}

// checkBound checks one address and enters it into taken, under a name that is the same for all ways of
// saying "every address".
func (d *decoder) checkBound(path, address string, taken map[string]string) {
	if p := d.places[path]; p != nil && p.bad || p == nil && address == "" {
		return // reported, as wrong or as missing
	}
	if err := checkAddress(address, false); err != nil {
		d.report(path, err.offset, "%s: %s", name(path), err.text)
		return
	}
	host, port, _ := net.SplitHostPort(address)
	if port == "0" {
		return
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "*"
	}
	key := strings.ToLower(host) + ":" + port
	if first, ok := taken[key]; ok {
		d.report(path, -1, "%s is taken by %s already", address, first)
		return
	}
	taken[key] = path
}

// packetsInFlight is how many of the largest packets the memory budget must hold: with fewer, one device with
// large messages stops all others.
const packetsInFlight = 4

// checkMemory compares the budget with the largest packet. The fault is shown at the field that the file sets.
func (d *decoder) checkMemory(c *Config) {
	budget, packet := "kafka.producer.max_in_flight_bytes", "limits.max_packet_size"
	if d.isBad(budget) || d.isBad(packet) || c.Kafka.Producer.MaxInFlightBytes >= packetsInFlight*c.Limits.MaxPacketSize {
		return
	}
	at := budget
	if d.places[budget] == nil {
		at = packet
	}
	d.report(at, -1, "max_in_flight_bytes (%s) must hold %d packets of limits.max_packet_size (%s): at least %s",
		c.Kafka.Producer.MaxInFlightBytes, packetsInFlight, c.Limits.MaxPacketSize, packetsInFlight*c.Limits.MaxPacketSize)
}

func (d *decoder) isBad(path string) bool {
	p := d.places[path]
	return p != nil && p.bad
}

func (d *decoder) checkDeadLetter(path, topic string) {
	if d.places[path] == nil {
		return
	}
	if err := topicmap.LegalKafkaTopic(topic); err != nil {
		d.report(path, -1, "dead_letter: %v", err)
	}
}

// statePrefix begins the names of the topics that hold the fleet's state, which no rule can read or write.
const statePrefix = "sluice-"

// checkState checks the topics that the instances share, and the one of presence.
func (d *decoder) checkState(c *Config) {
	taken := map[string]string{}
	for _, t := range []struct{ path, topic string }{{"sessions.topic", c.Sessions.Topic}, {"sessions.ledger", c.Sessions.Ledger}, {"retained.topic", c.Retained.Topic}} {
		rest, ok := strings.CutPrefix(t.topic, statePrefix)
		switch {
		case !ok || rest == "":
			d.report(t.path, -1, "%s: %q must begin with %s, so that no rule can read or write it", name(t.path), t.topic, statePrefix)
		case topicmap.LegalKafkaTopic(rest) != nil || len(t.topic) > 249:
			d.report(t.path, -1, "%s: %q is no legal Kafka topic", name(t.path), t.topic)
		case taken[t.topic] != "":
			d.report(t.path, -1, "%s: %s is the Kafka topic of %s", name(t.path), t.topic, taken[t.topic])
		}
		taken[t.topic] = t.path
	}
	const presence = "presence.topic"
	if d.places[presence] == nil || d.isBad(presence) {
		return
	}
	if err := topicmap.LegalKafkaTopic(c.Presence.Topic); err != nil {
		d.report(presence, -1, "topic: %v", err)
	}
}

// reservedHeaders begin the names of the headers that only the proxy sets, so that consumers can trust them.
var reservedHeaders = []string{"mqtt.", "sluice."}

// checkRules compiles the publish rules.
func (d *decoder) checkRules(c *Config) {
	compiled := make([]topicmap.Rule, len(c.Publish))
	for i, r := range c.Publish {
		compiled[i] = r.rule()
		d.checkRule(fmt.Sprintf("publish[%d]", i), r)
		d.checkIdentity(fmt.Sprintf("publish[%d]", i), &r, c.Kafka.Identities)
	}
	_, err := topicmap.Compile(compiled)
	d.reportRules("publish", err)
}

// reportRules translates what is wrong with the rules of a section into places of the file.
func (d *decoder) reportRules(section string, err error) {
	for _, err := range parts(err) {
		var rule *topicmap.RuleError
		if errors.As(err, &rule) {
			d.reportRule(section, rule)
		} else {
			d.report(section, -1, "%v", err)
		}
	}
}

// checkRule checks what the compiler can't know: what is in the file at all.
func (d *decoder) checkRule(path string, r Rule) {
	if d.isBad(path) {
		return // no mapping at all
	}
	if d.places[path+".match"] == nil && d.places[path+".regex"] == nil {
		d.fail("", d.places[path].key, "a rule needs match, a topic filter, or regex")
	}
	for _, h := range r.Headers {
		if reserved := reservedIn(h.Name); reserved != "" {
			header := path + ".headers." + h.Name
			d.fail(header, d.places[header].key, "header %q: names that begin with %s are the proxy's own", h.Name, reserved)
		}
	}
	for i, u := range r.UserProperties.Names {
		if reserved := reservedIn(u); reserved != "" {
			d.report(fmt.Sprintf("%s.user_properties[%d]", path, i), -1, "user_properties: %q: names that begin with %s are the proxy's own", u, reserved)
		}
	}
}

// reservedIn gives the prefix of a header name that is the proxy's own, "" if it is not.
func reservedIn(header string) string {
	for _, reserved := range reservedHeaders {
		if strings.HasPrefix(header, reserved) {
			return reserved
		}
	}
	return ""
}

// reportRule reports what the compiler found. What it says of fields that are not in the file was said before.
func (d *decoder) reportRule(section string, e *topicmap.RuleError) {
	path := fmt.Sprintf("%s[%d].%s", section, e.Rule, e.Field)
	p := d.places[path]
	switch {
	case p == nil || p.bad:
	case strings.HasPrefix(e.Field, "when.") && e.Offset >= 0 && e.Offset < len(p.keyAt):
		d.errs = append(d.errs, d.src.fault(p.keyAt[e.Offset], "when: %v", e.Err))
	case strings.HasPrefix(e.Field, "when.") || e.Field == "headers.":
		d.errs = append(d.errs, d.src.fault(p.key, "%s: %v", name(path), e.Err))
	default:
		// Not through report, which marks the field as bad: one text can have several faults.
		d.errs = append(d.errs, d.src.fault(p.byteAt(e.Offset), "%s: %v", name(path), e.Err))
	}
}

// parts gives the errors that errors.Join put together.
func parts(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}
