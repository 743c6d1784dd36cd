package tls

import (
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/tls/tlstest"
)

// opened gives what Open finds in records.
func opened(t testing.TB, c *Conn, records ...[]byte) string {
	t.Helper()
	var plain []byte
	for _, r := range records {
		var err error
		plain, err = c.Open(r, plain)
		require.NoError(t, err)
	}
	return string(plain)
}

// TestKeyUpdateIsAnswered, and both directions go on with new keys.
func TestKeyUpdateIsAnswered(t *testing.T) {
	c, up, down := laboratory(t)
	require.Empty(t, opened(t, c, up.Seal(typeHandshake, tlstest.KeyUpdate(1), 0)))
	require.True(t, c.Owes())
	up = up.Next(t)
	require.Equal(t, "after", opened(t, c, up.Seal(typeData, []byte("after"), 0)))

	out, err := c.Seal([]byte("answer"), nil)
	require.NoError(t, err)
	require.False(t, c.Owes())
	kind, content, rest := down.Open(t, out)
	require.Equal(t, tlstest.KeyUpdate(0), content)
	require.EqualValues(t, typeHandshake, kind)
	down = down.Next(t)
	_, content, rest = down.Open(t, rest)
	require.Equal(t, "answer", string(content))
	require.Empty(t, rest)
}

// TestKeyUpdateInPiecesAndPadded to the full, as RFC 8446 lets one send it, is taken, and owes nothing without a request.
func TestKeyUpdateInPiecesAndPadded(t *testing.T) {
	c, up, _ := laboratory(t)
	message := tlstest.KeyUpdate(0)
	require.Empty(t, opened(t, c, up.Seal(typeHandshake, message[:2], 16000), up.Seal(typeHandshake, message[2:], 16000)))
	require.False(t, c.Owes())
	up = up.Next(t)
	require.Equal(t, "after", opened(t, c, up.Seal(typeData, []byte("after"), 16000)))
	require.Zero(t, c.held())
}

// TestMessageThatNeverEndsIsRefused: a message of 256 KiB is not collected.
func TestMessageThatNeverEndsIsRefused(t *testing.T) {
	c, up, _ := laboratory(t)
	first := append([]byte{11, 3, 0xff, 0xff}, make([]byte, 16000)...)
	record := up.Seal(typeHandshake, first, 0)
	sent := 0
	var err error
	for err == nil {
		sent += len(record)
		require.Less(t, sent, 64<<10)
		_, err = c.Open(record, nil)
		require.LessOrEqual(t, c.held(), mostIdle+len(record))
		record = up.Seal(typeHandshake, make([]byte, 16000), 0)
	}
	require.ErrorIs(t, err, ErrStalled)
}

// TestRecordsWithoutDataAreCounted: neither empty ones nor changes of keys may go on for ever.
func TestRecordsWithoutDataAreCounted(t *testing.T) {
	flood := func(t *testing.T, one func(up *half) ([]byte, *half)) {
		c, up, _ := laboratory(t)
		for n := 0; ; n++ {
			require.Less(t, n, 100)
			var record []byte
			record, up = one(up)
			if _, err := c.Open(record, nil); err != nil {
				require.NotEqual(t, io.EOF, err)
				return
			}
		}
	}
	t.Run("empty", func(t *testing.T) {
		flood(t, func(up *half) ([]byte, *half) { return up.Seal(typeData, nil, 0), up })
	})
	t.Run("empty and padded", func(t *testing.T) {
		flood(t, func(up *half) ([]byte, *half) { return up.Seal(typeData, nil, 16000), up })
	})
	t.Run("new keys", func(t *testing.T) {
		flood(t, func(up *half) ([]byte, *half) { return up.Seal(typeHandshake, tlstest.KeyUpdate(1), 0), up.Next(t) })
	})
	t.Run("user canceled", func(t *testing.T) {
		flood(t, func(up *half) ([]byte, *half) { return up.Seal(typeAlert, []byte{1, 90}, 0), up })
	})
}

// TestAnswersThatNobodyReadsAreBounded: the device changes its keys again and again, with data in between, and reads nothing.
func TestAnswersThatNobodyReadsAreBounded(t *testing.T) {
	c, up, _ := laboratory(t)
	var err error
	for n := 0; err == nil; n++ {
		require.Less(t, n, 1000)
		if _, err = c.Open(up.Seal(typeHandshake, tlstest.KeyUpdate(1), 0), nil); err != nil {
			break
		}
		require.LessOrEqual(t, c.wire.owed(), mostOwed)
		up = up.Next(t)
		require.Equal(t, "x", string(opened(t, c, up.Seal(typeData, []byte("x"), 0))))
		if n < 500 {
			_, sealed := c.Seal(nil, nil) // as long as it reads, that is its right
			require.NoError(t, sealed)
		}
	}
	require.ErrorIs(t, err, ErrStalled)
}

// TestMessagesThatAreNotForAServerEndTheConnection.
func TestMessagesThatAreNotForAServerEndTheConnection(t *testing.T) {
	for name, content := range map[string][]byte{
		"hello":                {1, 0, 0, 0},
		"session ticket":       {4, 0, 0, 0},
		"certificate request":  {13, 0, 0, 0},
		"finished":             {20, 0, 0, 0},
		"unknown":              {99, 0, 0, 0},
		"key update and data":  append(tlstest.KeyUpdate(0), tlstest.KeyUpdate(0)...),
		"key update malformed": {24, 0, 0, 1, 7},
	} {
		t.Run(name, func(t *testing.T) {
			c, up, _ := laboratory(t)
			plain, err := c.Open(up.Seal(typeHandshake, content, 0), nil)
			require.Error(t, err)
			require.Empty(t, plain)
			_, again := c.Open(up.Seal(typeData, []byte("x"), 0), nil)
			require.Equal(t, err, again)
		})
	}
}

func TestWrongRecordsOf13EndTheConnection(t *testing.T) {
	for name, f := range map[string]func(up *half) []byte{
		"no type at all":       func(up *half) []byte { return up.Seal(0, nil, 100) },
		"unknown type":         func(up *half) []byte { return up.Seal(99, []byte("x"), 0) },
		"too much inside":      func(up *half) []byte { return up.Seal(typeData, make([]byte, 16<<10+1), 0) },
		"an alert of three":    func(up *half) []byte { return up.Seal(typeAlert, []byte{1, 0, 0}, 0) },
		"a fatal alert":        func(up *half) []byte { return up.Seal(typeAlert, []byte{2, 40}, 0) },
		"one that is repeated": func(up *half) []byte { r := up.Seal(typeData, []byte("x"), 0); return append(r, r...) },
		"one that is left out": func(up *half) []byte { up.Seq++; return up.Seal(typeData, []byte("x"), 0) },
		"an empty message":     func(up *half) []byte { return up.Seal(typeHandshake, nil, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			c, up, _ := laboratory(t)
			_, err := c.Open(f(up), nil)
			require.Error(t, err)
			require.NotEqual(t, io.EOF, err)
		})
	}
}

// TestDataBeforeTheFaultIsGiven: what was sealed well before it counts.
func TestDataBeforeTheFaultIsGiven(t *testing.T) {
	c, up, _ := laboratory(t)
	good, bad := up.Seal(typeData, []byte("good"), 0), up.Seal(99, []byte("x"), 0)
	plain, err := c.Open(append(good, bad...), nil)
	require.Error(t, err)
	require.Equal(t, "good", string(plain))
}

// TestRenegotiationIsRefused, in whichever way a device asks for it.
func TestRenegotiationIsRefused(t *testing.T) {
	for name, content := range map[string][]byte{
		"hello":         append([]byte{1, 0, 0, 43, 3, 3}, make([]byte, 41)...),
		"hello request": {0, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			c, up := laboratory12(t)
			require.Equal(t, "before", opened(t, c, up.Seal(typeData, []byte("before"))))
			plain, err := c.Open(up.Seal(typeHandshake, content), nil)
			require.Error(t, err)
			require.Empty(t, plain)
			require.True(t, c.Owes(), "an alert")
		})
	}
}

// TestRenegotiationInPiecesIsNotCollected.
func TestRenegotiationInPiecesIsNotCollected(t *testing.T) {
	c, up := laboratory12(t)
	record := up.Seal(typeHandshake, append([]byte{1, 0, 0xff, 0xff}, make([]byte, 16000)...))
	var err error
	for n := 0; err == nil; n++ {
		require.Less(t, n, 4)
		_, err = c.Open(record, nil)
		record = up.Seal(typeHandshake, make([]byte, 16000))
	}
	require.ErrorIs(t, err, ErrStalled)
}
