package clients

import (
	"context"
	"embed"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"sluice/test/internal/cache"
)

// The drivers' sources. Those in Go are built in place.
//
//go:embed life/python life/node life/java life/rust life/c
var lifeSources embed.FS

// workshop returns a directory of the cache with a language's drivers, made by build the first time. version stands
// for what else it is made from.
func workshop(ctx context.Context, language, version string, build func(work string) error) (string, error) {
	from := path.Join("life", language)
	parts := []string{version}
	files := map[string][]byte{}
	err := fs.WalkDir(lifeSources, from, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := lifeSources.ReadFile(name)
		files[strings.TrimPrefix(name, from+"/")] = b
		parts = append(parts, name, string(b))
		return err
	})
	if err != nil {
		return "", err
	}
	return cache.Once(ctx, "clients/life-"+language+"-"+fingerprint(parts...), func(work string) error {
		for name, b := range files {
			file := filepath.Join(work, filepath.FromSlash(name))
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(file, b, 0o644); err != nil {
				return err
			}
		}
		return build(work)
	})
}

func pythonLife(driver string) func(context.Context, string) ([]string, error) {
	return func(ctx context.Context, _ string) ([]string, error) {
		version, _, err := execute(ctx, nil, "python3", "-VV")
		if err != nil {
			return nil, err
		}
		dir, err := workshop(ctx, "python", version, func(work string) error {
			venv := filepath.Join(work, "venv")
			if err := install(ctx, work, "python3", "-m", "venv", venv); err != nil {
				return err
			}
			return install(ctx, work, filepath.Join(venv, "bin", "python"), "-m", "pip", "install", "--quiet",
				"--disable-pip-version-check", "--requirement", "requirements.txt")
		})
		return []string{filepath.Join(dir, "venv", "bin", "python"), filepath.Join(dir, driver)}, err
	}
}

func nodeLife(driver string) func(context.Context, string) ([]string, error) {
	return func(ctx context.Context, _ string) ([]string, error) {
		dir, err := workshop(ctx, "node", "", func(work string) error {
			return install(ctx, work, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
		})
		return []string{"node", filepath.Join(dir, driver)}, err
	}
}

func javaLife(class string) func(context.Context, string) ([]string, error) {
	return func(ctx context.Context, _ string) ([]string, error) {
		_, version, err := execute(ctx, nil, "javac", "-version")
		if err != nil {
			return nil, err
		}
		dir, err := workshop(ctx, "java", version, func(work string) error {
			if err := install(ctx, work, "mvn", "--batch-mode", "--quiet", "-C",
				"org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies", "-DincludeScope=runtime",
				"-DoutputDirectory=jars"); err != nil {
				return err
			}
			return install(ctx, work, "javac", "-cp", "jars/*", "-d", "classes", "Driver.java", "PahoV3.java", "PahoV5.java", "HiveMq.java")
		})
		return []string{"java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp",
			filepath.Join(dir, "classes") + ":" + filepath.Join(dir, "jars", "*"), class}, err
	}
}

func rustLife(ctx context.Context, _ string) ([]string, error) {
	version, _, err := execute(ctx, nil, "cargo", "--version")
	if err != nil {
		return nil, err
	}
	dir, err := workshop(ctx, "rust", version, func(work string) error {
		return install(ctx, work, "cargo", "build", "--quiet", "--locked")
	})
	return []string{filepath.Join(dir, "target", "debug", "matrix")}, err
}

func cLife(driver, library string) func(context.Context, string) ([]string, error) {
	return func(ctx context.Context, _ string) ([]string, error) {
		dir, err := workshop(ctx, "c", library, func(work string) error {
			return install(ctx, work, "cc", "-O1", "-o", driver, driver+".c", library, "-lpthread")
		})
		return []string{filepath.Join(dir, driver)}, err
	}
}

// goLife builds a driver anew each time: go's own cache makes that cheap.
func goLife(driver string) func(context.Context, string) ([]string, error) {
	return func(ctx context.Context, scratch string) ([]string, error) {
		program := filepath.Join(scratch, driver)
		return []string{program}, install(ctx, "", "go", "build", "-o", program, "sluice/test/clients/life/"+driver)
	}
}
