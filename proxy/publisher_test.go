package proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"sluice/kafka"
)

// TestLevelOfAMessageWithoutAnAnswerIsWhatItMeans: a client ID that is taken over in order is nothing that an operator must look
// at.
func TestLevelOfAMessageWithoutAnAnswerIsWhatItMeans(t *testing.T) {
	for err, want := range map[error]string{
		kafka.ErrClosed: "", kafka.ErrAborted: "debug", kafka.ErrFenced: "warn", kafka.ErrTransactionUnknown: "error", kafka.ErrUncertain: "error",
	} {
		var log bytes.Buffer
		(&publisher{log: zerolog.New(&log)}).unanswered(fmt.Errorf("%w: a reason", err))
		var line struct{ Level string }
		if want != "" {
			require.NoError(t, json.Unmarshal(log.Bytes(), &line), "%v", err)
		}
		require.Equal(t, want, line.Level, "%v", err)
		require.Equal(t, want == "error", bytes.Contains(log.Bytes(), []byte("unknown whether a record")), "%v", err)
	}
}
