package kafka

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTheSecretGoesThroughNoProxyOfTheEnvironment: whoever sets a variable would read it, or be asked in its place.
func TestTheSecretGoesThroughNoProxyOfTheEnvironment(t *testing.T) {
	s := &SASL{Mechanism: OAuthBearer, TokenURL: "https://login.example/token", ClientID: "sluice", ClientSecret: secret}
	require.NoError(t, s.check())
	require.Nil(t, s.tokens.http.Transport.(*http.Transport).Proxy)
}
