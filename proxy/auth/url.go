package auth

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"

	"sluice/tls"
)

// checkURL refuses a URL over which others could answer: it is https, or http to this machine.
func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return errors.New("it is no URL") // the error would quote it, with a password in it
	case u.Host == "":
		return errors.New("the URL names no host")
	case u.User != nil:
		return errors.New("the URL has a user or a password in it")
	case u.Scheme == "https", u.Scheme == "http" && loopback(u.Hostname()):
		return nil
	}
	return errors.New("the URL must begin with https://; http:// is for the loopback interface alone")
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// newClient makes a client that goes to the server of a URL and nowhere else: it follows no redirect and uses
// no proxy from the environment.
func newClient(cfg tls.ClientConfig, connections int) (*http.Client, error) {
	config, err := tls.NewClient(cfg)
	if err != nil {
		return nil, err
	}
	return &http.Client{
		Transport: &http.Transport{
			DialTLSContext: tls.Dialer(config), MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections,
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// withoutURL leaves out of an error of a client the URL, which may have a secret in its query.
func withoutURL(err error) error {
	if full, ok := errors.AsType[*url.Error](err); ok {
		return full.Err
	}
	return err
}

// place gives a URL as logs may show it.
func place(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host + u.EscapedPath()
}

// exchange sends a request and gives the body of the answer, which must have the status 200 and no more than
// limit bytes.
func exchange(client *http.Client, r *http.Request, limit int64) ([]byte, error) {
	answer, err := client.Do(r)
	if err != nil {
		return nil, withoutURL(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer has the status %d", answer.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, limit+1))
	if err == nil && int64(len(body)) > limit {
		err = fmt.Errorf("the answer is larger than %d bytes", limit)
	}
	return body, err
}
