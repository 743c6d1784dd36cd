package mqtt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gobwas/ws"
)

// upgradeMax bounds the request that opens a WebSocket: 8 KiB hold a few cookies.
const upgradeMax = 8 << 10

var (
	errNotHTTP       = errors.New("not an HTTP request")
	errUpgradeTooBig = errors.New("the HTTP request is larger than 8 KiB")
)

// acceptWebSocket answers the request that opens a WebSocket and gives what came behind it. early is what came of it.
func (c *Conn) acceptWebSocket(e *WebSocket, early []byte) (rest []byte, err error) {
	size := headEnd(early)
	for size == 0 {
		switch {
		case !begins(early, []byte("GET ")):
			return nil, errNotHTTP
		case len(early) > upgradeMax:
			_ = c.say([]byte("HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"))
			return nil, errUpgradeTooBig
		}
		if early, err = c.readSome(early); err != nil {
			return nil, err
		}
		size = headEnd(early)
	}
	answer, err := e.upgrade(early[:size])
	if said := c.say(answer); err == nil {
		err = said
	}
	if err != nil {
		return nil, err
	}
	c.link.frames = &unframer{limit: int64(c.srv.cfg.MaxPacketSize) + frameSlack}
	c.mu.Lock()
	c.link.framed = true
	c.mu.Unlock()
	return early[size:], nil
}

// headEnd gives the length of a request up to the empty line behind its fields, 0 if that did not come.
func headEnd(b []byte) int {
	for at := 0; ; {
		n := bytes.IndexByte(b[at:], '\n')
		if n < 0 {
			return 0
		}
		at += n + 1
		switch {
		case begins(b[at:], []byte("\n")) && len(b) > at:
			return at + 1
		case begins(b[at:], []byte("\r\n")) && len(b) > at+1:
			return at + 2
		}
	}
}

// A handshaking is a request that opens a WebSocket, while it is looked at.
type handshaking struct {
	endpoint *WebSocket
	host     string
	origins  []string
	offered  bool // the subprotocol is that of MQTT
}

// upgrade gives the answer to a request, and an error if it is no.
func (e *WebSocket) upgrade(request []byte) (answer []byte, err error) {
	var out bytes.Buffer
	h := handshaking{endpoint: e}
	_, err = ws.Upgrader{
		ReadBufferSize:  upgradeMax,
		OnRequest:       h.asked,
		OnHost:          h.onHost,
		OnHeader:        h.onHeader,
		Protocol:        h.speaks,
		OnBeforeUpgrade: h.decide,
	}.Upgrade(struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(request), &out})
	if err != nil && out.Len() == 0 { // the library has no answer to what it can't read
		out.WriteString("HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
	}
	return out.Bytes(), err
}

func rejected(status int, format string, args ...any) error {
	return ws.RejectConnectionError(ws.RejectionStatus(status), ws.RejectionReason(fmt.Sprintf(format, args...)))
}

func (h *handshaking) asked(uri []byte) error {
	path, _, _ := strings.Cut(string(uri), "?")
	if path == h.endpoint.Path || h.endpoint.Path == "" && (path == "/mqtt" || path == "/") {
		return nil
	}
	return rejected(http.StatusNotFound, "there is nothing at this path")
}

func (h *handshaking) onHost(host []byte) error {
	h.host = string(host)
	return nil
}

func (h *handshaking) onHeader(name, value []byte) error {
	if string(name) == "Origin" {
		h.origins = append(h.origins, string(value))
	}
	return nil
}

func (h *handshaking) speaks(protocol []byte) bool {
	isOurs := string(protocol) == "mqtt" || string(protocol) == "mqttv3.1"
	h.offered = h.offered || isOurs
	return isOurs
}

// decide holds the request to what must be in it.
func (h *handshaking) decide() (ws.HandshakeHeader, error) {
	switch {
	case !h.offered: // [MQTT-6.0.0-3]
		return nil, rejected(http.StatusBadRequest, "the subprotocol mqtt is not offered")
	case slices.ContainsFunc(h.origins, h.isForeign):
		return nil, rejected(http.StatusForbidden, "pages of this origin may not connect")
	}
	return nil, nil
}

// isForeign says that pages of an origin may not connect.
func (h *handshaking) isForeign(origin string) bool {
	if slices.Contains(h.endpoint.Origins, "*") {
		return false
	}
	if slices.ContainsFunc(h.endpoint.Origins, func(o string) bool { return strings.EqualFold(o, origin) }) {
		return false
	}
	u, err := url.Parse(origin)
	return err != nil || u.Host == "" || !strings.EqualFold(u.Host, h.host)
}
