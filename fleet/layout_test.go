package fleet

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestKeysOfLaterReleasesAreIgnored: an instance goes on beside one of a later release.
func TestKeysOfLaterReleasesAreIgnored(t *testing.T) {
	var table Table
	for _, key := range []string{"!l", "!x/whatever", "!"} {
		client, changed, err := table.Apply(Record{Key: []byte(key), Value: []byte("?")})
		require.NoError(t, err, key)
		require.Empty(t, client)
		require.False(t, changed)
	}
	kind, client, _, err := ParseKey(SessionKey("!l", "A"))
	require.NoError(t, err)
	require.Equal(t, KeySession, kind)
	require.Equal(t, "!l", client, "a client ID may begin so")
}

func TestTheLowerLayoutIsTheOlder(t *testing.T) {
	a, b := Layout{map[string]int32{"s": 3, "l": 4}}, Layout{map[string]int32{"s": 4, "l": 3, "r": 7}}
	require.Equal(t, map[string]int32{"s": 3, "l": 3, "r": 7}, a.Lower(b).Partitions)
	value, err := a.Encode()
	require.NoError(t, err)
	read, err := DecodeLayout(value)
	require.NoError(t, err)
	require.Equal(t, a, read)
	_, err = DecodeLayout([]byte(`{"v":9}`))
	require.ErrorIs(t, err, ErrNewerVersion)
}
