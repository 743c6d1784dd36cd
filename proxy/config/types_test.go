package config

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestSizes(t *testing.T) {
	good := func(s string, want Bytes) {
		t.Helper()
		got, err := ParseBytes(s)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	good("0", 0)
	good("1000", 1000)
	good("1B", 1)
	good("256KiB", 256<<10)
	good("64MiB", 64<<20)
	good("64 MiB", 64<<20)
	good("3GiB", 3<<30)
	good("2TiB", 2<<40)
	good("1kB", 1000)
	good("1KB", 1000)
	good("5MB", 5e6)
	good("1GB", 1e9)
	good("1TB", 1e12)
	good("9223372036854775807", math.MaxInt64)
	for _, s := range []string{"", "MiB", "-1", "+1", "1.5MiB", "1MiBs", "1mib", "1K", "1 000", " 1", "1  MiB", "0x10", "9223372036854775808", "8388608TiB", "1e3"} {
		_, err := ParseBytes(s)
		require.Error(t, err, s)
	}
}

func TestSizesAreReadAsTheyAreWritten(t *testing.T) {
	require.Equal(t, []string{"0", "1000", "1KiB", "64MiB", "1536KiB", "1TiB"},
		[]string{Bytes(0).String(), Bytes(1000).String(), kib.String(), (64 * mib).String(), (1536 * kib).String(), tib.String()})
	rapid.Check(t, func(t *rapid.T) {
		want := Bytes(rapid.Int64Range(0, math.MaxInt64).Draw(t, "mantissa") >> rapid.IntRange(0, 60).Draw(t, "shift") << rapid.IntRange(0, 40).Draw(t, "unit"))
		got, err := ParseBytes(max(want, 0).String())
		require.NoError(t, err)
		require.Equal(t, max(want, 0), got)
	})
}

func TestModesAreTheWordsOfTheFile(t *testing.T) {
	require.Equal(t, []string{"reject", "drop", "dead_letter", "Mode(3)", "Mode(-1)"},
		[]string{Reject.String(), Drop.String(), DeadLetter.String(), Mode(3).String(), Mode(-1).String()})
}

func TestDurationsAreShownWithoutEmptyParts(t *testing.T) {
	for want, d := range map[string]time.Duration{"0s": 0, "24h": 24 * time.Hour, "1h30m": 90 * time.Minute, "10m": 10 * time.Minute,
		"5ms": 5 * time.Millisecond, "18h12m15s": 65535 * time.Second, "1h0m5s": time.Hour + 5*time.Second, "20s": 20 * time.Second} {
		require.Equal(t, want, shortDuration(d))
	}
}
