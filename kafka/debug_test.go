package kafka

import (
	"log"
	"os"
	"github.com/IBM/sarama"
)

func init() {
	if os.Getenv("SARAMA") != "" {
		sarama.Logger = log.New(os.Stderr, "", log.Ltime|log.Lmicroseconds)
	}
}
