package clients

import (
	"context"
	_ "embed" // for the page
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

//go:embed node/page.html
var browserPage string

// Browser is MQTT.js in a page that headless Chromium has loaded from a web server on loopback.
type Browser struct {
	program string
	script  string // MQTT.js as browsers load it
	pages   *httptest.Server
	told    chan Page
}

// Page is what the page saw.
type Page struct {
	Connected bool     `json:"connected"`
	Acked     int      `json:"acked"`    // messages it published
	Received  []string `json:"received"` // payloads
	Error     string   `json:"error"`
}

// Chromium returns a browser with a web server for its page.
func Chromium(t testing.TB) *Browser {
	t.Helper()
	b := &Browser{told: make(chan Page, 1)}
	obtain(t, "MQTT.js in Chromium", "install Chromium and Node.js with npm (Debian: apt-get install chromium-headless-shell nodejs npm)", b.install)
	b.pages = httptest.NewServer(b)
	t.Cleanup(b.pages.Close)
	return b
}

func (b *Browser) install(ctx context.Context) (Runner, error) {
	for _, name := range []string{"chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			b.program = path
			break
		}
	}
	if b.program == "" {
		return Runner{}, errors.New("no Chromium on the PATH")
	}
	dir, err := nodeDir(ctx)
	b.script = filepath.Join(dir, "node_modules", "mqtt", "dist", "mqtt.min.js")
	return Runner{Name: "chromium"}, err
}

// Origin is what the page's requests name as where they come from.
func (b *Browser) Origin() string { return b.pages.URL }

// ServeHTTP gives the page and its script, and takes what it reports.
func (b *Browser) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/":
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, browserPage)
	case "/mqtt.min.js":
		http.ServeFile(w, r, b.script)
	case "/report":
		var p Page
		if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&p); err != nil {
			p.Error = err.Error()
		}
		select {
		case b.told <- p:
		default: // the first report counts
		}
	default:
		http.NotFound(w, r)
	}
}

// Run has the page connect to a WebSocket URL, subscribe to a topic with QoS 1, publish to it and wait for what comes
// back. Certificates are taken as they are: who signed them is not what a page tests.
func (b *Browser) Run(ctx context.Context, socket, topic string, version byte, payloads ...string) (Page, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	job, err := json.Marshal(map[string]any{"url": socket, "topic": topic, "version": version, "payloads": payloads})
	if err != nil {
		return Page{}, err
	}
	page := b.pages.URL + "/#" + url.PathEscape(string(job))
	cmd := exec.CommandContext(ctx, b.program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--ignore-certificate-errors", "--remote-debugging-port=0", page)
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Debian's program is a script that starts the browser
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Start(); err != nil {
		return Page{}, err
	}
	defer func() { // the browser has no reason to end by itself
		cancel()
		_ = cmd.Wait()
	}()
	select {
	case p := <-b.told:
		return p, nil
	case <-ctx.Done():
		return Page{}, fmt.Errorf("the page reported nothing: %w", ctx.Err())
	}
}
