package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

// javaMin is the oldest Java that runs Kafka 4.
const javaMin = 17

var javaVersion = regexp.MustCompile(`version "(\d+)`)

// findJava returns a java of at least javaMin: JAVA_HOME's, the PATH's, or one
// of those that Linux distributions keep side by side.
func findJava() (string, error) {
	err := errors.New("no java found")
	for _, java := range javaCandidates() {
		var major int
		if major, err = javaMajor(java); err != nil {
			continue
		}
		if major >= javaMin {
			return java, nil
		}
		err = fmt.Errorf("%s is Java %d, Kafka needs %d", java, major, javaMin)
	}
	return "", err
}

func javaCandidates() []string {
	var c []string
	if home := os.Getenv("JAVA_HOME"); home != "" {
		c = append(c, filepath.Join(home, "bin", "java"))
	}
	if java, err := exec.LookPath("java"); err == nil {
		c = append(c, java)
	}
	installed, _ := filepath.Glob("/usr/lib/jvm/*/bin/java") // a constant, well-formed pattern
	return append(c, installed...)
}

func javaMajor(java string) (int, error) {
	out, err := exec.Command(java, "-version").CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("cannot ask %q for its version: %w", java, err)
	}
	m := javaVersion.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("cannot read the version of %q in %q", java, lastLines(string(out), 3))
	}
	return strconv.Atoi(string(m[1]))
}
