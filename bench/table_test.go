package bench

import (
	"bytes"
	"io"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestTablesFitIn80Columns(t *testing.T) {
	big := &Times{123456.78, 123456.78, 123456.78, 123456.78, 123456.78}
	connections := Connections{Wanted: 1_000_000, Made: 999_999, Failed: 1, Lost: 123_456, Again: 123_456, Seconds: 1234.56, PerSecond: 12345.6, Times: big, Pings: big,
		Reasons: map[string]int{"DISCONNECT 0x8D": 3, strings.Repeat("a reason of many words ", 10): 123_456}}
	back := &Readback{Topics: []string{"plant-1", "plant-2", "plant-3", "plant-4", "plant-5", "plant-6"}, Records: 123_456_789, Lost: 1, Doubled: 2, Disordered: 3, Repeats: 4,
		Unacknowledged: 5, NotStored: 6, Spread: 7, Deleted: 8, Examples: []string{"lost: messages 1000000 to 2000000 of device 123456"}}
	for _, write := range []func(io.Writer) error{
		(&PublishResult{QoS: 2, Window: 65535, Size: 1 << 20, Rate: 1_000_000, Seconds: 36000, Run: "0123abcd", Connections: connections, Sent: 1_000_000_000, Acknowledged: 1_000_000_000,
			PerSecond: 1e6, Refused: 10, Refusals: []string{"PUBACK 0x87"}, Unacknowledged: 7, Repeated: 8, Late: 1e7, Times: big, CPU: 1000, Readback: back}).WriteTable,
		(&HoldResult{Run: "0123abcd", Connections: connections, Alive: 5}).WriteTable,
		(&CommandsResult{Run: "0123abcd", Connections: connections, Written: 1e9, NotWritten: 3, WhyNot: strings.Repeat("why not ", 30), Strange: 3, Times: big, Stored: big,
			Examples: []string{"lost: commands 1 to 2 of device 3"}, Receipts: &Receipts{Topic: "command-receipts", Outcomes: map[string]int{"delivered": 1e9, "expired": 1}, Doubled: 1}}).WriteTable,
	} {
		var b bytes.Buffer
		require.NoError(t, write(&b))
		for line := range strings.Lines(b.String()) {
			require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), 80, line)
			require.Equal(t, strings.TrimRight(line, " \n")+"\n", line)
		}
	}
}

func TestThousandsAreApart(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1 000", 123456: "123 456", 1234567: "1 234 567", -1234: "-1 234"} {
		require.Equal(t, want, Thousands(n))
	}
}

func TestABarStaysInItsLine(t *testing.T) {
	require.Equal(t, "reading     [##########----------]  50%  1 of 2", barLine("reading", State{.5, "1 of 2"}, 79))
	require.Equal(t, 30, utf8.RuneCountInString(barLine("reading", State{2, strings.Repeat("µ", 100)}, 30)))
	require.Contains(t, barLine("reading", State{-1, ""}, 79), "[--------------------]   0%")

	var b lockedBuffer
	bar := Show(&b, func() int { return 40 }, "reading", func() State { return State{1, strings.Repeat("long ", 20)} })
	bar.Close()
	shown := b.String()
	require.NotContains(t, shown, "\n")
	require.True(t, strings.HasSuffix(shown, "\r\x1b[K"), "%q", shown)
	Show(nil, nil, "", nil).Close()
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
