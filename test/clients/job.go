package clients

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync/atomic"
)

// serial makes client IDs differ within a test binary.
var serial atomic.Int64

// job checks and completes what a run was asked for.
func (r Runner) job(addr string, version, qos byte, messages []Message) (job, error) {
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return job{}, err
	}
	port, err := strconv.Atoi(service)
	if err != nil {
		return job{}, err
	}
	if !slices.Contains(r.Versions, version) {
		return job{}, fmt.Errorf("does not speak MQTT level %d", version)
	}
	if version != V5 && slices.ContainsFunc(messages, Message.hasProperties) {
		return job{}, fmt.Errorf("properties need MQTT 5")
	}
	id := r.ClientID
	if id == "" {
		id = fmt.Sprintf("%s-%d", r.Name, serial.Add(1))
	}
	return job{Host: host, Port: port, Version: version, QoS: qos, ClientID: id,
		Username: r.Username, Password: r.Password, Messages: messages}, nil
}
