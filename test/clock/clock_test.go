package clock

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// program says what its clock says, and what the monotonic one says of a line's time, for each line that it is given.
const program = `package main

import (
	"bufio"
	"fmt"
	"os"
	"time"
)

func main() {
	begin := time.Now()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fmt.Println(time.Now().UnixNano(), int64(time.Since(begin)))
	}
}
`

// TestClockOfAProcessIsSteppedWhileItRuns, forwards and back, and its monotonic clock is not.
func TestClockOfAProcessIsSteppedWhileItRuns(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o600))
	out := filepath.Join(dir, "program")
	require.NoError(t, Build(t.TempDir(), out, filepath.Join(dir, "main.go")))
	c, err := New(filepath.Join(dir, "clock"))
	require.NoError(t, err)
	cmd := exec.Command(out)
	cmd.Env = append(os.Environ(), c.Env())
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	from, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	begin := time.Now()
	for _, ahead := range []time.Duration{0, time.Hour + time.Nanosecond, -3 * time.Second, 7 * time.Millisecond} {
		require.NoError(t, c.Set(ahead))
		before := time.Now()
		_, err := in.Write([]byte("\n"))
		require.NoError(t, err)
		line := make([]byte, 100)
		n, err := from.Read(line)
		require.NoError(t, err)
		words := strings.Fields(string(line[:n]))
		wall, err := strconv.ParseInt(words[0], 10, 64)
		require.NoError(t, err)
		at := time.Unix(0, wall).Add(-ahead)
		require.False(t, at.Before(before.Round(0)) || at.After(time.Now().Round(0)), "%v: %v", ahead, at)
		mono, err := strconv.ParseInt(words[1], 10, 64)
		require.NoError(t, err)
		require.LessOrEqual(t, time.Duration(mono), time.Since(begin))
	}
	require.NoError(t, in.Close())
	require.NoError(t, cmd.Wait())
}

// TestClockOfAProgramOfCsLibrary is stepped by the library.
func TestClockOfAProgramOfCsLibrary(t *testing.T) {
	dir := t.TempDir()
	env, err := Preload(dir)
	require.NoError(t, err)
	c, err := New(filepath.Join(dir, "clock"))
	require.NoError(t, err)
	for _, ahead := range []time.Duration{0, time.Hour, -time.Minute} {
		require.NoError(t, c.Set(ahead))
		cmd := exec.Command("date", "+%s.%N")
		cmd.Env = append(os.Environ(), c.Env(), env)
		before := time.Now()
		out, err := cmd.Output()
		require.NoError(t, err)
		seconds, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
		require.NoError(t, err)
		at := time.UnixMicro(int64(seconds * 1e6)).Add(-ahead)
		require.False(t, at.Before(before.Add(-time.Millisecond)) || at.After(time.Now()), "%v: %v", ahead, at)
	}
}
