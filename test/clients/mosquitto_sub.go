package clients

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// mosquittoFormat is a message as a line of JSON. The payload in it ends at a zero byte, so that in hexadecimal counts.
const mosquittoFormat = `{"hex":"%x","message":%j}`

// subscribe runs mosquitto_sub, which has no option for No Local and answers nothing.
func (m mosquitto) subscribe(ctx context.Context, j subscribeJob) (*Subscriber, error) {
	if j.Subscription.NoLocal || j.Subscription.Answer {
		return nil, errors.New("mosquitto_sub can't do that")
	}
	cmd := exec.CommandContext(ctx, m.stdbuf, append([]string{"-oL", m.sub}, subscribeArguments(j)...)...)
	connects := 0
	p, err := startProcess("mosquitto_sub", cmd, func(line []byte) (event, error) {
		if bytes.HasSuffix(line, []byte(" sending CONNECT")) {
			if connects++; connects > 1 {
				_ = cmd.Process.Kill() // it would connect again for ever
				return event{}, errReconnect
			}
		}
		return mosquittoEvent(line)
	})
	if err != nil {
		return nil, err
	}
	p.quit = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	return p.Subscriber, nil
}

func subscribeArguments(j subscribeJob) []string {
	version := map[byte]string{V311: "mqttv311", V5: "mqttv5"}[j.Version]
	s := j.Subscription
	args := []string{"-h", j.Host, "-p", strconv.Itoa(j.Port), "-V", version, "-i", j.ClientID, "-q", strconv.Itoa(int(s.QoS)),
		"-d", "-F", mosquittoFormat}
	for _, f := range s.Filters {
		args = append(args, "-t", f)
	}
	if s.ID > 0 {
		args = append(args, "-D", "subscribe", "subscription-identifier", strconv.Itoa(s.ID))
	}
	if s.RetainAsPublished {
		args = append(args, "--retain-as-published")
	}
	if s.Keep {
		args = append(args, "-c")
		if j.Version == V5 {
			args = append(args, "-x", "3600")
		}
	}
	if j.Username != "" {
		args = append(args, "-u", j.Username, "-P", j.Password)
	}
	return args
}

var mosquittoSubscribed = regexp.MustCompile(`^Subscribed \(mid: \d+\): ([\d, ]+)$`)

// mosquittoEvent reads a line of mosquitto_sub -d.
func mosquittoEvent(line []byte) (event, error) {
	if m := mosquittoSubscribed.FindSubmatch(line); m != nil {
		var e event
		for code := range strings.SplitSeq(string(m[1]), ", ") {
			e.Granted = append(e.Granted, number(code))
		}
		return e, nil
	}
	if bytes.HasPrefix(line, []byte("Client ")) {
		return event{}, nil
	}
	m, err := mosquittoMessage(line)
	return event{Message: m}, err
}

func mosquittoMessage(line []byte) (*Received, error) {
	var l struct {
		Hex     string
		Message struct {
			Topic      string
			QoS        byte
			Retain     int
			Properties struct {
				User        json.RawMessage `json:"user-properties"`
				ContentType string          `json:"content-type"`
				Response    string          `json:"response-topic"`
				Correlation string          `json:"correlation-data"`
				Expiry      uint32          `json:"message-expiry-interval"`
				ID          int             `json:"subscription-identifier"`
			}
		}
	}
	if err := json.Unmarshal(line, &l); err != nil {
		return nil, err
	}
	p := l.Message.Properties
	r := &Received{QoS: l.Message.QoS, Message: Message{Topic: l.Message.Topic, Retain: l.Message.Retain == 1,
		ContentType: p.ContentType, ResponseTopic: p.Response, CorrelationData: []byte(p.Correlation), Expiry: p.Expiry}}
	if p.ID > 0 {
		r.SubscriptionIDs = []int{p.ID}
	}
	var err error
	if r.Payload, err = hex.DecodeString(l.Hex); err == nil {
		r.UserProperties, err = pairs(p.User)
	}
	return r, err
}

// pairs reads an object in its order, in which a name may stand more than once.
func pairs(object json.RawMessage) (all [][2]string, err error) {
	if len(object) == 0 {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(object))
	if _, err := d.Token(); err != nil { // {
		return nil, err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		value, err := d.Token()
		if err != nil {
			return nil, err
		}
		all = append(all, [2]string{fmt.Sprint(name), fmt.Sprint(value)})
	}
	return all, nil
}
