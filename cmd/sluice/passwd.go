package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"sluice/proxy/auth"
)

type passwdCommand struct {
	Name string `arg:"" help:"User name."`
}

// Help is shown by sluice passwd --help.
func (c *passwdCommand) Help() string {
	return "The password is read from the standard input, up to the end of its first line; from a terminal it is asked for and not shown. The line printed goes below `users:`."
}

// Run prints the user's line.
func (c *passwdCommand) Run(std streams) error {
	password, err := readPassword(os.Stdin, std.err)
	if err != nil {
		return fmt.Errorf("cannot read the password: %w", err)
	}
	hash, err := auth.HashPassword(password)
	if err != nil {
		return usageError{err}
	}
	fmt.Fprintf(std.out, "  - {name: %q, password: %q}\n", c.Name, hash)
	return nil
}

// readPassword reads a line, without showing it if in is a terminal.
func readPassword(in *os.File, prompt io.Writer) ([]byte, error) {
	if fd := int(in.Fd()); term.IsTerminal(fd) {
		fmt.Fprint(prompt, "Password: ")
		defer fmt.Fprintln(prompt)
		return term.ReadPassword(fd)
	}
	line, err := bufio.NewReader(io.LimitReader(in, 4<<10)).ReadBytes('\n')
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return bytes.TrimRight(line, "\r\n"), err
}
