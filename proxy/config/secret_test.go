package config

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestASecretIsNotPrinted(t *testing.T) {
	s := SASL{Password: "hunter2"}
	text, err := json.Marshal(s)
	require.NoError(t, err)
	for _, seen := range []string{fmt.Sprint(s), fmt.Sprintf("%+v %#v", s, s), fmt.Sprintf("%q %s", s.Password, s.Password), string(text)} {
		require.NotContains(t, seen, "hunter2")
		require.Contains(t, seen, "***")
	}
	require.Equal(t, "hunter2", string(s.Password))
	require.Equal(t, "", Secret("").String())
}

// TestFaultsShowNoSecret: wherever the fault is, and whatever it is.
func TestFaultsShowNoSecret(t *testing.T) {
	hide := func(src string) {
		t.Helper()
		_, err := Parse("f", []byte(src), environment(map[string]string{"PW": "hunter2", "X": "x"}))
		require.Error(t, err)
		require.NotContains(t, err.Error(), "hunter", "%s", src)
	}
	sasl := func(fields string) {
		t.Helper()
		hide(cluster("  sasl: {mechanism: PLAIN, x: 1, username: u, " + fields + "}\n"))
		hide(cluster("  sasl:\n    mechanism: PLAIN\n    username: u\n    " + fields + "\n    x: 1\n"))
	}
	for _, name := range []string{"password", "pasword", "Password", "passwd", "pass", "client_secret", "db_secret", "'password'", `"password"`} {
		sasl(name + ": hunter2")
		sasl(name + ": 'hunter2'")
		sasl(name + `: "hunter2"`)
		sasl(name + ": 'x''hunter2'")
		sasl(name + `: "x\"hunter2"`)
		sasl(name + `: "hunter2`) // no YAML: the quotation mark is open
		sasl(name + ": ${hunter 2}")
		sasl(name + ": '${X} hunter2 ${'")
		sasl(name + ": [hunter2]")
		sasl(name + ": {hunter2}")
		sasl(name + ": hunter2: x")
		sasl(name + ": @hunter2")
		sasl(name + ": 'a', client_secret: hunter2")
		sasl(name + ": '${PW}'")
		hide(cluster("  sasl: {mechanism: PLAIN, username: ${NONE}, " + name + ": hunter2}\n"))
		hide(cluster("  sasl:\n    " + name + ": |\n      hunter2 ${NONE}\n    mechanism: PLAIN\n    username: u\n"))
		hide(cluster("  sasl:\n    " + name + ": >-\n\n\n      hunter2 ${NONE}\n    mechanism: PLAIN\n    username: u\n"))
		hide(cluster("  sasl:\n    " + name + ":\n      hunter2 ${NONE}\n    mechanism: PLAIN\n    username: u\n"))
		hide(cluster("  sasl:\n    " + name + ": \"x\n      hunter2 ${NONE}\"\n    mechanism: PLAIN\n    username: u\n"))
		hide(cluster("  sasl: {mechanism: PLAIN, username: u, " + name + ": \"x\n  hunter2 ${NONE}\"}\n"))
	}
	sasl("password: 12345hunter")
	_, err := Parse("f", []byte(cluster("  sasl: {mechanism: PLAIN, username: u, password: 0042}\n")), noEnv)
	require.ErrorContains(t, err, "5:51: password must be a text; write it in quotes\n")
	require.NotContains(t, err.Error(), "42}")
	hide(base + "auth: {jwt: {secret: hunter2}}\n")
	hide(base + "auth: {jwt: {secret: '${PW}'}}\n")
	hide(base + "auth: {http: {url: 'https://u:hunter2@a/'}}\n")
	hide(cluster("  sasl: {mechanism: OAUTHBEARER, token_url: \"http://hunter2@a b/\", client_id: a, client_secret: b}\n"))
}

func TestWhatIsNoSecretIsShown(t *testing.T) {
	_, err := Parse("f", []byte(cluster("  sasl: {mechanism: PLAIN, password: \"ä1\", username: u, x: 1}\n")), noEnv)
	require.EqualError(t, err, `f:5:57: unknown field "x" (known here: mechanism, username, password, token_url, token_tls, client_id, client_secret, scopes)
    sasl: {mechanism: PLAIN, password: ****, username: u, x: 1}
                                                          ^`)
}

func TestSecretNamesAreThoseOfTheFields(t *testing.T) {
	require.ElementsMatch(t, []string{"password", "client_secret", "secret"}, secretNames)
}

// TestMaskKeepsPlaces: carets are put under characters by their number.
func TestMaskKeepsPlaces(t *testing.T) {
	text := "a: b\npassword: ä\n\n  ö\t: x\nc: d\npassword: 'x' # y\n"
	for i, line := range strings.Split(text, "\n") {
		require.Len(t, []rune(mask(text)[i]), len([]rune(line)))
	}
	require.Equal(t, []string{"a: b", "password: *", "", "  *\t* *", "c: d", "password: *** # y", ""}, mask(text))
}
