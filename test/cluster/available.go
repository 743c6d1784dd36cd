package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// way is how a cluster is come by.
type way int

const (
	wayNone      way = iota
	wayExternal      // KAFKA_BROKERS
	wayJava          // Java and Kafka's jars
	wayContainer     // docker or podman
)

const remedy = `set KAFKA_BROKERS=host:port,… to a Kafka for tests, ` +
	`or install Java 17 and Maven (Debian: apt-get install openjdk-17-jre-headless maven), ` +
	`or start a container engine (docker or podman)`

// facts is what this machine offers. It does not change while a test binary
// runs, and asking takes a second, so it is found out once.
type facts struct {
	way    way
	why    string // how, or the reasons against each way and the remedy
	java   string // path of java, for wayJava
	engine string // docker or podman, for wayContainer
}

var machine = sync.OnceValue(findOut)

// Available says whether a cluster can be had here, and why: by which way, or
// what is missing for each way and how to get it.
func Available() (ok bool, why string) {
	m := machine()
	return m.way != wayNone, m.why
}

func findOut() facts {
	if brokers := external(); len(brokers) > 0 {
		return facts{way: wayExternal, why: "KAFKA_BROKERS=" + strings.Join(brokers, ",")}
	}
	java, noJava := javaWay()
	if noJava == nil {
		return facts{way: wayJava, java: java, why: "Apache Kafka " + kafkaVersion + " on " + java}
	}
	engine, noEngine := containerWay()
	if noEngine == nil {
		return facts{way: wayContainer, engine: engine, why: image() + " in " + engine}
	}
	return facts{why: fmt.Sprintf("no Kafka to test against: KAFKA_BROKERS is not set; %v; %v. Remedy: %s",
		noJava, noEngine, remedy)}
}

// external returns the brokers of KAFKA_BROKERS.
func external() []string {
	return strings.FieldsFunc(os.Getenv("KAFKA_BROKERS"), func(r rune) bool { return r == ',' || r == ' ' })
}

func javaWay() (string, error) {
	java, err := findJava()
	if err != nil {
		return "", err
	}
	if haveJars() {
		return java, nil // downloaded earlier: no Maven needed
	}
	if _, err := exec.LookPath("mvn"); err != nil {
		return "", fmt.Errorf("no Maven to download Kafka with: %w", err)
	}
	return java, nil
}

func containerWay() (string, error) {
	err := fmt.Errorf("neither docker nor podman found")
	for _, engine := range []string{"docker", "podman"} {
		if _, lookErr := exec.LookPath(engine); lookErr != nil {
			continue
		}
		if err = engineAnswers(engine); err == nil {
			return engine, nil
		}
	}
	return "", err
}

func engineAnswers(engine string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, engine, "info").CombinedOutput(); err != nil {
		return fmt.Errorf("%s does not answer (%w: %s)", engine, err, lastLines(string(out), 1))
	}
	return nil
}
