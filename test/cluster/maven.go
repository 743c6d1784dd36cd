package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"sluice/test/internal/cache"
)

// kafkaVersion is the Apache Kafka the tests run against.
const kafkaVersion = "4.3.1"

// pom asks for Kafka's server with its command line tools, and for the
// logging back end that Kafka's own distribution adds: without it a node logs
// nothing at all.
const pom = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>sluice.test</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>` + kafkaVersion + `</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>` + kafkaVersion + `</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.4</version></dependency>
  </dependencies>
</project>
`

// copyDependencies is the Maven goal, with its version, that puts the jars
// into one directory.
const copyDependencies = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"

// jarsName is the jars' directory in the cache.
const jarsName = "kafka/" + kafkaVersion

// haveJars says whether they have been downloaded earlier.
func haveJars() bool {
	dir, err := cache.Dir("kafka")
	return err == nil && cache.Has(filepath.Join(dir, kafkaVersion))
}

// jars returns the directory of Kafka's jars and downloads them the first
// time.
func jars(ctx context.Context) (string, error) {
	dir, err := cache.Once(ctx, jarsName, func(work string) error { return download(ctx, work) })
	return filepath.Join(dir, "jars"), err
}

func download(ctx context.Context, work string) error {
	if err := os.WriteFile(filepath.Join(work, "pom.xml"), []byte(pom), 0o644); err != nil {
		return err
	}
	// -C refuses a file whose checksum is not the repository's.
	mvn := exec.CommandContext(ctx, "mvn", "--batch-mode", "--quiet", "-C", copyDependencies,
		"-DincludeScope=runtime", "-DoutputDirectory=jars")
	mvn.Dir = work
	if out, err := mvn.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot download Apache Kafka %s by Maven: %w\n%s", kafkaVersion, err, lastLines(string(out), 20))
	}
	return nil
}

// lastLines returns the last n lines of s.
func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
