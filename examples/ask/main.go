// Command ask sends a request to a device through Kafka and waits for its answer, by the rules of
// examples/request-reply.yaml:
//
//	ask --brokers localhost:9092 --device d1 --name reboot --timeout 10s now
//
// The answer goes to standard output. The exit code is 1 when there is none: a receipt says that the device does not get
// the request, or the time is over, and then the request is cancelled. It is 2 for a wrong command line.
package main

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	brokers, req := parse()
	answer, err := ask(ctx, brokers, req)
	if err != nil {
		fmt.Fprintln(os.Stderr, "ask:", err)
		os.Exit(1)
	}
	fmt.Printf("%s\n", answer)
}

// parse reads the command line; with a wrong one the process ends.
func parse() (brokers []string, req request) {
	list := flag.String("brokers", "localhost:9092", "some `brokers` of Kafka, with commas between them")
	flag.StringVar(&req.device, "device", "", "the `client ID` of the device")
	flag.StringVar(&req.name, "name", "", "what is asked for: the level of the MQTT topic behind requests/")
	flag.DurationVar(&req.timeout, "timeout", 10*time.Second, "how long to wait for the answer")
	flag.IntVar(&req.instances, "instances", 1, "how many instances of Sluice there are")
	v3 := flag.Bool("v3", false, "the device speaks MQTT 3.1.1")
	flag.Parse()
	if flag.NArg() != 1 || req.device == "" || req.name == "" || req.timeout <= 0 || req.instances < 1 {
		fmt.Fprintln(os.Stderr, "ask: --device, --name and one PAYLOAD behind the flags are needed, and numbers above 0")
		os.Exit(2)
	}
	req.topic, req.id, req.payload = "requests", rand.Text(), flag.Arg(0)
	if *v3 {
		req.topic = "requests-v3"
	}
	return strings.Split(*list, ","), req
}
