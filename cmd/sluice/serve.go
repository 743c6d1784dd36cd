package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/rs/zerolog"

	"sluice/proxy"
	"sluice/proxy/config"
)

// configFlag is shared by every command that reads a configuration.
type configFlag struct {
	Config string `short:"c" required:"" placeholder:"FILE" help:"The configuration, a YAML file."`
}

// load reads the configuration; its faults are printed as they are, one after the other.
func (f configFlag) load() (*config.Config, error) {
	cfg, err := config.Load(f.Config, os.LookupEnv)
	if err != nil {
		return nil, usageError{err}
	}
	return cfg, nil
}

type serveCommand struct{ configFlag }

// Run serves until SIGTERM or SIGINT.
func (c *serveCommand) Run(std streams) error {
	hangups := catchHangups()
	cfg, err := c.load()
	if err != nil {
		return err
	}
	log := newLogger(std, cfg.Log)
	signal.Ignore(syscall.SIGPIPE) // what the log was piped to may end; its next line would end us, and cut all devices off
	ctx := untilStopped(log, hangups)
	p, err := proxy.New(cfg, log, newRegistry())
	if _, files := errors.AsType[proxy.SetupError](err); files {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	log.Info().Str("version", version).Str("config", c.Config).Int("rules", len(cfg.Publish)).Msg("starting")
	if err := p.Run(ctx); err != nil {
		return err
	}
	log.Info().Msg("stopped; everything that was acknowledged is stored")
	return nil
}

// newRegistry makes the registry of all metrics, with those of the process and the Go runtime.
func newRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

func newLogger(std streams, cfg config.Log) zerolog.Logger {
	zerolog.TimeFieldFormat = time.RFC3339Nano
	level, err := zerolog.ParseLevel(cfg.Level)
	if err != nil {
		level = zerolog.InfoLevel // unreachable: the configuration was checked
	}
	if cfg.Format == "json" {
		return zerolog.New(std.err).Level(level).With().Timestamp().Logger()
	}
	return zerolog.New(consoleWriter(std)).Level(level).With().Timestamp().Logger()
}

func consoleWriter(std streams) zerolog.ConsoleWriter {
	w := zerolog.ConsoleWriter{Out: std.err, TimeFormat: "15:04:05.000"}
	if f, ok := std.err.(*os.File); ok {
		info, err := f.Stat()
		w.NoColor = err != nil || info.Mode()&os.ModeCharDevice == 0 || os.Getenv("NO_COLOR") != ""
	}
	return w
}

type versionCommand struct{}

// Run prints the version.
func (versionCommand) Run(std streams) error {
	_, err := fmt.Fprintln(std.out, "sluice", version)
	return err
}
