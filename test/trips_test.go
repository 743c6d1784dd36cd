//go:build trips

package test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/test/cluster"
	"sluice/test/internal/wire"
)

// A trip is a way through the program. The compiler's counters say what runs between its ends.
type trip struct {
	name   string
	before func()
	run    func() // once, from one end to the other
	after  func()
}

// Each trip is made that often. What ran in more than half of them belongs to it, and the work of clocks does not.
const tripsMade = 15

// TestTrips writes docs/trips.md: make trips.
func TestTrips(t *testing.T) {
	b := openTrips(t)
	var page bytes.Buffer
	fmt.Fprintf(&page, "# Trips\n\nWritten by `make trips`: what runs on the way in the real binary, with a real Kafka, in more than half of %d\n"+
		"trips. A function literal is a part of what it stands in.\n", tripsMade)
	for _, tr := range b.trips() {
		times := map[string]int{}
		for range tripsMade {
			tr.before()
			before := b.count()
			tr.run()
			after := b.count()
			tr.after()
			for f := range b.ran(b.counters(before), b.counters(after)) {
				times[f]++
			}
		}
		reportTrip(&page, tr.name, times)
	}
	require.NoError(t, os.WriteFile("../docs/trips.md", page.Bytes(), 0o644))
}

// A tripBench is an instance that counts what it runs, with two devices and a back end.
type tripBench struct {
	t       *testing.T
	s       *instance
	dir     string // where its counters go
	backend *kgo.Client
	topic   string // of commands
	d, kept *wireDevice
	in      map[string][]tripFunction // by file
}

// A tripFunction is a function of a file, with its lines.
type tripFunction struct {
	name     string
	from, to int
}

func openTrips(t *testing.T) *tripBench {
	t.Helper()
	b := &tripBench{t: t, dir: t.TempDir(), in: map[string][]tripFunction{}}
	counting := filepath.Join(t.TempDir(), "sluice")
	out, err := exec.Command("go", "build", "-tags", "trips", "-cover", "-covermode", "atomic", "-coverpkg", "sluice/...", "-o", counting, "../cmd/sluice").CombinedOutput()
	require.NoError(t, err, "%s", out)
	kafkas := cluster.Need(t, cluster.Config{})
	up := cluster.TopicName(t)
	receipts := up + "-receipts"
	b.topic = up + "-commands"
	for _, topic := range []string{up, b.topic, receipts} {
		require.NoError(t, kafkas.CreateTopic(topic, 1, 1, nil))
	}
	b.backend = independent(t, kafkas.Brokers(), kgo.ConsumeTopics(receipts))
	b.s = prepare(t, kafkas.Brokers(), "  - match: up/#\n    topic: "+up, fmt.Sprintf(
		"commands:\n  - topic: %s\n    publish: \"down/{key}\"\n    client: \"{key}\"\n    receipts: %s", b.topic, receipts))
	b.s.program, b.s.env = counting, []string{"GOCOVERDIR=" + b.dir}
	b.s.start()
	b.s.awaitReady()
	await(t, func() bool { return b.s.metric("sluice_session_owned_partitions") > 0 }, b.s.log.String)
	b.d = sayHello(t, b.s.address, wire.Hello{Version: 5, ID: "d"})
	require.EqualValues(t, 1, b.d.subscribe("down/d", 1))
	b.keep()
	require.EqualValues(t, 1, b.kept.subscribe("down/kept", 1))
	return b
}

// keep connects the device with a stored session.
func (b *tripBench) keep() {
	b.kept = sayHello(b.t, b.s.address, wire.Hello{Version: 5, ID: "kept", Persist: true, Properties: wire.Properties(0x11, uint32(3600))})
}

func (b *tripBench) command(key string) {
	require.NoError(b.t, b.backend.ProduceSync(b.t.Context(), &kgo.Record{Topic: b.topic, Key: []byte(key), Value: []byte("x"), Headers: []kgo.RecordHeader{{Key: "mqtt.qos", Value: []byte("1")}}}).FirstErr())
}

func (b *tripBench) receipt() {
	for n := 0; n == 0; {
		n = b.backend.PollFetches(b.t.Context()).NumRecords()
	}
}

func (b *tripBench) trips() []trip {
	var got wire.Reply
	take := func(d *wireDevice) { got = d.next(wire.PUBLISH) }
	answer := func(d *wireDevice) {
		d.send(wire.Packet(wire.PUBACK, got.Body[2+len(got.Topic()):][:2]))
		b.receipt()
	}
	nothing := func() {}
	return []trip{
		{"PUBLISH to PUBACK", nothing, func() { require.Zero(b.t, b.d.publish(wire.Publish{Topic: "up/d", QoS: 1, Payload: "x"})) }, nothing},
		{"Command to device", nothing, func() { b.command("d"); take(b.d) }, func() { answer(b.d) }},
		{"PUBACK to receipt", func() { b.command("d"); take(b.d) }, func() { answer(b.d) }, nothing},
		{"CONNECT with a stored session to the command that waited", func() {
			b.kept.send(wire.Packet(wire.DISCONNECT))
			await(b.t, func() bool { return b.s.metric("sluice_mqtt_connections") == 1 }, b.s.log.String)
			b.command("kept")
		}, func() { b.keep(); take(b.kept) }, func() { answer(b.kept) }},
	}
}

// count has the instance write its counters, and gives the folder that has them.
func (b *tripBench) count() (dir string) {
	b.t.Helper()
	said := strings.Count(b.s.log.String(), "counters: <nil>")
	require.NoError(b.t, b.s.cmd.Process.Signal(syscall.SIGUSR2))
	await(b.t, func() bool { return strings.Count(b.s.log.String(), "counters: <nil>") > said }, b.s.log.String)
	dir = b.t.TempDir()
	files, err := filepath.Glob(filepath.Join(b.dir, "covcounters.*"))
	require.NoError(b.t, err)
	for _, file := range files {
		require.NoError(b.t, os.Rename(file, filepath.Join(dir, filepath.Base(file))))
	}
	return dir
}

// counters gives how often each block had run, by its place: file:line.column,line.column statements.
func (b *tripBench) counters(dir string) map[string]int {
	b.t.Helper()
	profile := filepath.Join(dir, "profile")
	out, err := exec.Command("go", "tool", "covdata", "textfmt", "-i="+b.dir+","+dir, "-o="+profile).CombinedOutput()
	require.NoError(b.t, err, "%s", out)
	text, err := os.ReadFile(profile)
	require.NoError(b.t, err)
	counts := map[string]int{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(strings.TrimPrefix(line, "sluice/"))
		at := strings.LastIndexByte(line, ' ')
		if n, err := strconv.Atoi(line[at+1:]); err == nil {
			counts[line[:at]] = n
		}
	}
	return counts
}

// ran gives the functions, each with its file before it, of which a block ran in between.
func (b *tripBench) ran(before, after map[string]int) map[string]bool {
	b.t.Helper()
	functions := map[string]bool{}
	for block, n := range after {
		if n == before[block] || strings.HasPrefix(block, "cmd/") {
			continue
		}
		file, place, _ := strings.Cut(block, ":")
		line, err := strconv.Atoi(place[:strings.IndexByte(place, '.')])
		require.NoError(b.t, err)
		for _, f := range b.functionsOf(file) {
			if f.from <= line && line <= f.to {
				functions[file+" "+f.name] = true
			}
		}
	}
	return functions
}

func (b *tripBench) functionsOf(file string) []tripFunction {
	b.t.Helper()
	if all, known := b.in[file]; known {
		return all
	}
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, filepath.Join("..", file), nil, 0)
	require.NoError(b.t, err)
	var all []tripFunction
	for _, decl := range parsed.Decls {
		if f, is := decl.(*ast.FuncDecl); is && f.Body != nil {
			all = append(all, tripFunction{receiverOf(f) + f.Name.Name, set.Position(f.Pos()).Line, set.Position(f.End()).Line})
		}
	}
	b.in[file] = all
	return all
}

// receiverOf gives the type a method is of, with a point, and nothing of a function.
func receiverOf(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return ""
	}
	of := f.Recv.List[0].Type
	if star, is := of.(*ast.StarExpr); is {
		of = star.X
	}
	if generic, is := of.(*ast.IndexExpr); is {
		of = generic.X
	}
	return fmt.Sprint(of) + "."
}

// reportTrip writes a trip as Markdown.
func reportTrip(page *bytes.Buffer, name string, times map[string]int) {
	files, n := map[string][]string{}, 0
	for f, made := range times {
		if file, function, _ := strings.Cut(f, " "); made > tripsMade/2 {
			files[file] = append(files[file], function)
			n++
		}
	}
	fmt.Fprintf(page, "\n## %s: %d functions in %d files\n\n", name, n, len(files))
	for _, file := range slices.Sorted(maps.Keys(files)) {
		slices.Sort(files[file])
		fmt.Fprintf(page, "- `%s`: %s\n", file, strings.Join(files[file], ", "))
	}
}
