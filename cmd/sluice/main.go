// Command sluice takes messages of MQTT devices to Kafka and acknowledges them when Kafka has.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/alecthomas/kong"
)

// version is set by the linker for releases.
var version = "dev"

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // failed while running
	exitUsage  = 2 // wrong command line or configuration
)

// A usageError is one of the command line or the configuration; it ends the program with exit code 2.
type usageError struct{ error }

type commands struct {
	Serve   serveCommand   `cmd:"" help:"Serve devices as the configuration says."`
	Dev     devCommand     `cmd:"" help:"Try it out: serve devices on an embedded Kafka in this process and print every record."`
	Check   checkCommand   `cmd:"" help:"Check a configuration and print every fault with its place."`
	Explain explainCommand `cmd:"" help:"Show what becomes of one message: rule, Kafka topic, key, partition, headers."`
	Bench   benchCommand   `cmd:"" help:"Load for an MQTT server, to size it or to see that nothing is lost."`
	Topics  topicsCommand  `cmd:"" help:"Create the Kafka topics that the configuration names and that are missing."`
	Passwd  passwdCommand  `cmd:"" help:"Print the line of a user for a users file, with the hash of a password."`
	Schema  schemaCommand  `cmd:"" help:"Print the JSON Schema of the configuration."`
	Version versionCommand `cmd:"" help:"Print the version."`
}

// streams are where a command writes: results to out, everything else to err.
type streams struct{ out, err io.Writer }

func main() {
	os.Exit(run(os.Args[1:], streams{os.Stdout, os.Stderr}))
}

// run executes one command line and gives its exit code.
func run(args []string, std streams) int {
	var cli commands
	parser, err := kong.New(&cli,
		kong.Name("sluice"),
		kong.Description("Sluice takes MQTT messages to Kafka. What a device was told is stored, is stored."),
		kong.Writers(std.out, std.err),
		kong.UsageOnError(),
		kong.Bind(std),
	)
	if err != nil {
		fmt.Fprintln(std.err, "sluice:", err)
		return exitFailed
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(std.err, "sluice: %v\nTry: sluice --help\n", err)
		return exitUsage
	}
	return report(command.Run(), std)
}

// report prints err, if there is one, and gives the exit code.
func report(err error, std streams) int {
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintln(std.err, usage.error)
		return exitUsage
	}
	fmt.Fprintln(std.err, "sluice:", err)
	return exitFailed
}
