package performance

import (
	"archive/zip"
	"context"
	_ "embed" // for the program
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"sluice/test/internal/cache"
)

//go:embed librdkafka.c.txt
var librdkafkaProgram string

// confluentKafka is Python's client, whose wheel has a librdkafka of its own that is newer than those of distributions.
const confluentKafka = "confluent-kafka==2.16.1"

// BuildLibrdkafka builds the program that produces with librdkafka, and gives the library's version. The library is that of
// a wheel from PyPI, or else this machine's own. It needs a C compiler.
func BuildLibrdkafka(ctx context.Context, program string) (version string, err error) {
	source := program + ".c"
	if err := os.WriteFile(source, []byte(librdkafkaProgram), 0o644); err != nil {
		return "", err
	}
	link := []string{"-l:librdkafka.so.1"}
	dir, wheelErr := cache.Once(ctx, "librdkafka/"+confluentKafka, func(work string) error { return fetchLibrdkafka(ctx, work) })
	if found, _ := filepath.Glob(filepath.Join(dir, "librdkafka*.so*")); wheelErr == nil && len(found) == 1 {
		link = []string{found[0], "-Wl,-rpath," + dir, "-Wl,--allow-shlib-undefined"}
	}
	args := append([]string{"-O2", "-Wall", "-pthread", "-o", program, source}, link...)
	if out, err := exec.CommandContext(ctx, "gcc", args...).CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("cannot build the producer of librdkafka: %w: %s", err, out), wheelErr)
	}
	out, err := exec.CommandContext(ctx, program, "version").Output()
	return strings.TrimSpace(string(out)), err
}

// fetchLibrdkafka takes the libraries out of the wheel.
func fetchLibrdkafka(ctx context.Context, work string) error {
	wheels := filepath.Join(work, "wheel")
	pip := exec.CommandContext(ctx, "python3", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--dest", wheels, confluentKafka)
	if out, err := pip.CombinedOutput(); err != nil {
		return fmt.Errorf("pip cannot fetch %s: %w: %s", confluentKafka, err, out)
	}
	found, err := filepath.Glob(filepath.Join(wheels, "*.whl"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("pip fetched %d wheels: %w", len(found), err)
	}
	wheel, err := zip.OpenReader(found[0])
	if err != nil {
		return err
	}
	defer wheel.Close()
	for _, f := range wheel.File {
		if !strings.HasPrefix(f.Name, "confluent_kafka.libs/") || f.FileInfo().IsDir() {
			continue
		}
		if err := extract(f, filepath.Join(work, filepath.Base(f.Name))); err != nil {
			return err
		}
	}
	return os.RemoveAll(wheels)
}

func extract(f *zip.File, path string) error {
	in, err := f.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
