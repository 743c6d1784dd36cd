package clients

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"sync"
)

// An event is a line that a subscribing driver prints: the codes of the SUBACK, or a message.
type event struct {
	Granted []int     `json:"granted"`
	Message *Received `json:"message"`
}

// subscribeDriver returns a start of a program that gets the job as a line of JSON on its standard input and prints an
// event per line until its input ends.
func subscribeDriver(name string, program string, args ...string) func(context.Context, subscribeJob) (*Subscriber, error) {
	return func(ctx context.Context, j subscribeJob) (*Subscriber, error) {
		in, err := json.Marshal(j)
		if err != nil {
			return nil, err
		}
		cmd := exec.CommandContext(ctx, program, args...)
		stdin, err := cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		p, err := startProcess(name, cmd, func(line []byte) (event, error) {
			var e event
			return e, json.Unmarshal(line, &e)
		})
		if err != nil {
			return nil, err
		}
		p.quit = stdin.Close
		if _, err := stdin.Write(append(in, '\n')); err != nil {
			return nil, fmt.Errorf("%w: %w", err, p.close())
		}
		return p.Subscriber, nil
	}
}

// A process is a client that is a program.
type process struct {
	*Subscriber
	cmd    *exec.Cmd
	stderr bytes.Buffer
	quit   func() error // tells the program to disconnect and end
	once   sync.Once
	done   chan struct{} // closed when the program has ended
	result error         // valid then
}

// startProcess runs the program; parse makes events of its lines.
func startProcess(name string, cmd *exec.Cmd, parse func([]byte) (event, error)) (*process, error) {
	p := &process{Subscriber: newSubscriber(name), cmd: cmd, done: make(chan struct{})}
	p.stop = p.close
	cmd.Stderr = &p.stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go p.follow(stdout, parse) // ends with the program
	return p, nil
}

func (p *process) follow(stdout io.Reader, parse func([]byte) (event, error)) {
	defer close(p.done)
	var fault error
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		e, err := parse(lines.Bytes())
		if err != nil && fault == nil {
			fault = fmt.Errorf("cannot read %q: %w", lines.Bytes(), err)
		}
		p.change(func() { p.take(e) })
	}
	_, _ = io.Copy(io.Discard, stdout) // after a line that is too long
	err := p.cmd.Wait()
	p.result = strict(err, p.stderr.String())
	if fault != nil {
		p.result = fault
	}
	p.change(func() { p.ended, p.err = true, p.result })
}

// take is called under the lock.
func (s *Subscriber) take(e event) {
	if e.Granted != nil {
		s.granted = e.Granted
	}
	if e.Message != nil {
		s.got = append(s.got, *e.Message)
	}
}

func (p *process) close() error {
	p.once.Do(func() { _ = p.quit() }) // a program that has ended by itself says why below
	<-p.done
	return p.result
}
