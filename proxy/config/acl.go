package config

import "sluice/proxy/acl"

// ACLRule allows or denies some rights on the topics that a filter matches, to all devices or to one. It has exactly
// one of `allow` and `deny`.
//
//   - `publish`: PUBLISH to the topic.
//   - `subscribe`: SUBSCRIBE, and each delivery. A topic filter is allowed if an entry that allows covers all of it and
//     no entry before denies any of it.
//   - `will`: have a will message for the topic.
//   - `retain`: set the RETAIN flag of what is published, or of a will, to the topic; it is asked in addition to
//     `publish` or `will`.
type ACLRule struct {
	// Allow are the rights that are given.
	Allow []string `yaml:"allow"`
	// Deny are the rights that are refused.
	Deny []string `yaml:"deny"`
	// Filter is an MQTT topic filter. `{mqtt.client_id}`, `{mqtt.username}` and `{cert.cn}` stand for those of the
	// device, alone in a level or between other characters. They are taken literally. If one is missing or empty, has
	// `/`, `+` or `#` in it, or begins the filter and is a text that begins with `$`, an entry that allows matches nothing
	// for that device, and one that denies matches everything from that level on. As in MQTT, a filter that begins with
	// a wildcard does not match topics that begin with `$`. `{{` and `}}` stand for braces. For shared subscriptions, it is
	// the filter behind `$share/NAME/` that counts.
	Filter string `yaml:"filter"`
	// Username narrows the entry to the device with exactly this user name, the one that `auth` found.
	Username string `yaml:"username"`
	// ClientID narrows the entry to the device with exactly this client ID. Without `auth` that ties the two, a
	// client ID is what a device says.
	ClientID string `yaml:"client_id"`
	// Share narrows the entry to shared subscriptions, `$share/NAME/FILTER`, with such a NAME; `*` stands for any
	// characters. It is for `subscribe` alone.
	Share string `yaml:"share"`
}

// The words of ACLRule.Allow and ACLRule.Deny.
const (
	RightPublish   = "publish"
	RightSubscribe = "subscribe"
	RightWill      = "will"
	RightRetain    = "retain"
)

// rightOf are the words in the terms of package acl.
var rightOf = map[string]acl.Right{
	RightPublish: acl.Publish, RightSubscribe: acl.Subscribe, RightWill: acl.Will, RightRetain: acl.Retain,
}

// rule is the entry in the terms of package acl.
func (r *ACLRule) rule() acl.Rule {
	out := acl.Rule{Deny: len(r.Deny) > 0, Filter: r.Filter, Username: r.Username, ClientID: r.ClientID, Share: r.Share}
	for _, words := range [][]string{r.Allow, r.Deny} {
		for _, w := range words {
			out.Rights |= rightOf[w]
		}
	}
	return out
}

// AccessList compiles the ACL; nil if the file has none, and everything is allowed. It can't fail for a Config that
// Parse gave.
func (c *Config) AccessList() (*acl.List, error) {
	if c.ACL == nil {
		return nil, nil
	}
	rules := make([]acl.Rule, len(c.ACL))
	for i := range c.ACL {
		rules[i] = c.ACL[i].rule()
	}
	return acl.Compile(rules)
}
