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

// maxPassword is the longest password that is taken, in bytes.
const maxPassword = 1024

type passwdCommand struct {
	Name string `arg:"" help:"User name."`
}

// Help is shown by sluice passwd --help.
func (c *passwdCommand) Help() string {
	return "The password is read from the standard input, up to the end of its first line; from a terminal it is asked for and not shown. It may have 1024 bytes. The line printed goes below `users:`."
}

// Run prints the user's line.
func (c *passwdCommand) Run(std streams) error {
	if !auth.ValidName(c.Name) {
		return usageError{fmt.Errorf("the user name %q %s", c.Name, auth.NameRule)}
	}
	password, err := readPassword(os.Stdin, std.err)
	if err != nil {
		return fmt.Errorf("cannot read the password: %w", err)
	}
	if len(password) > maxPassword {
		return usageError{fmt.Errorf("the password has more than %d bytes", maxPassword)}
	}
	hash, err := auth.HashPassword(password)
	if err != nil {
		return usageError{err}
	}
	fmt.Fprintf(std.out, "  - {name: %q, password: %q}\n", c.Name, hash)
	return nil
}

// readPassword reads a line, without showing it if in is a terminal. It reads enough to tell that a line is too long.
func readPassword(in *os.File, prompt io.Writer) ([]byte, error) {
	if fd := int(in.Fd()); term.IsTerminal(fd) {
		fmt.Fprint(prompt, "Password: ")
		defer fmt.Fprintln(prompt)
		return term.ReadPassword(fd)
	}
	line, err := bufio.NewReader(io.LimitReader(in, 2*maxPassword)).ReadBytes('\n')
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return bytes.TrimRight(line, "\r\n"), err
}
