package auth

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	goodBcrypt = "$2a$04$abcdefghijklmnopqrstuuLr7TaMmDP4M4iVkEZVyGaHQnyIXBQoO"
	goodArgon  = "$argon2id$v=19$m=64,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)

func TestUsersFileFaultsAreAllNamedWithTheirLine(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		u, err := parseUsers([]byte(text))
		require.Nil(t, u, text)
		require.Equal(t, want, strings.Split(err.Error(), "\n"), text)
		var located *SyntaxError
		require.True(t, errors.As(err, &located))
		require.NotContains(t, err.Error(), "hunter2")
	}
	user := func(name, password string) string { return "- {name: " + name + ", password: \"" + password + "\"}\n" }

	f("", `line 1: "users" is missing`)
	f("# nothing\n", `line 1: "users" is missing`)
	f("user: []", `line 1: unknown field; the file has ["users"]`, `line 1: "users" is missing`)
	f("users: hunter2", `line 1: "users" must be a list`)
	f("[]", `line 1: the file must be a mapping of ["users"]`, `line 1: "users" is missing`)
	f("users: []\nusers: []", `line 2: duplicate field "users"`)
	f("users:\n- hunter2", `line 2: a user must be a mapping of ["name" "password"]`, `line 2: "name" is missing`, `line 2: "password" is missing`)
	f("users:\n- {hunter2}", `line 2: unknown field; a user has ["name" "password"]`, `line 2: "name" is missing`, `line 2: "password" is missing`)
	f("users:\n- {name: a, name: b, password: \""+goodArgon+"\"}", `line 2: duplicate field "name"`)
	f("users:\n- {name: a}", `line 2: "password" is missing`)
	f("users:\n- name: 007\n  password: 1", `line 2: "name" must be text; put it in quotes`, `line 3: "password" must be text; put it in quotes`)
	f("users:\n"+user("a", goodArgon)+user("b", goodArgon)+user("a", goodBcrypt), `line 4: duplicate name "a"; it is in line 2 already`)
	f("users:\n"+user("a", "hunter2")+user("b", "$1$hunter2"),
		`line 2: password must be a hash of bcrypt or argon2id of "a"`, `line 3: password must be a hash of bcrypt or argon2id of "b"`)
	f("users:\n"+user("a+", goodArgon), `line 2: name "a+" `+NameRule)
	f("users:\n"+user(`"\t"`, goodArgon), `line 2: name "\t" `+NameRule)
	f("users: &x []", "line 1: anchors, aliases, merge keys, tags, complex keys and directives are not supported")
	f("users: []\n---\nusers: []", "line 3: a second document begins here; a users file is one")
	f("users: [[[[[[[[[[[[", "line 1: nested too deep")
	f("users: [", "line 1: cannot read this as YAML")
	f("users:\n\t- hunter2", "line 2: cannot read this as YAML")
	f("users: \xff", "line 1: the file is not UTF-8 text")
}

func TestManyFaultsAreCutShort(t *testing.T) {
	_, err := parseUsers([]byte("users:\n" + strings.Repeat("- {name: a}\n", 1000)))
	require.Len(t, strings.Split(err.Error(), "\n"), maxFaults)
}

func TestHashesThatCostTooMuchAreNotTaken(t *testing.T) {
	argon := func(parameters string) string { return strings.Replace(goodArgon, "m=64,t=1,p=1", parameters, 1) }
	for _, bad := range []string{
		"", "$2a$", "$2x$04$" + goodBcrypt[7:], "$2a$15$" + goodBcrypt[7:], "$2a$99$" + goodBcrypt[7:], goodBcrypt[:59], goodBcrypt + "x",
		"$argon2i$" + goodArgon[10:], strings.Replace(goodArgon, "v=19", "v=16", 1), goodArgon + "$", goodArgon + "=", goodArgon[:40],
		argon("m=65537,t=1,p=1"), argon("m=4294967296,t=1,p=1"), argon("m=64,t=0,p=1"), argon("m=64,t=11,p=1"), argon("m=64,t=1,p=0"),
		argon("m=1024,t=1,p=17"), argon("m=64,t=1,p=256"), argon("m=7,t=1,p=1"), argon("m=64,t=1,p=9"), argon("m=64,t=1"), argon("m=+64,t=1,p=1"), argon("m=64,t=1,p=1x"),
		argon("m=064,t=1,p=1"),
	} {
		_, err := parseHash(bad)
		require.Error(t, err, bad)
		if len(bad) > 20 {
			require.NotContains(t, err.Error(), bad[len(bad)-15:])
		}
	}
	for _, good := range []string{goodBcrypt, "$2b" + goodBcrypt[3:], "$2y" + goodBcrypt[3:], goodArgon, argon("m=65536,t=10,p=16")} {
		_, err := parseHash(good)
		require.NoError(t, err, good)
	}
}

func TestBcryptDoesNotTakeTheBeginningOfAPassword(t *testing.T) {
	long := strings.Repeat("x", maxBcrypt)
	h, err := parseHash(quickHash(t, long))
	require.NoError(t, err)
	require.True(t, h.matches([]byte(long)))
	require.False(t, h.matches([]byte(long+"y")))
	require.False(t, h.matches(nil))
}

func TestNamesOfDevices(t *testing.T) {
	for _, good := range []string{"a", "é", "a b", "$SYS", "urn:dev:1", strings.Repeat("x", 1024), "\uFFFD"} {
		require.True(t, ValidName(good), good)
	}
	for _, bad := range []string{"", "+", "a#", "a/b", "a\x00", "a\n", "\x7f", "\u0085", "\xff", strings.Repeat("x", 1025)} {
		require.False(t, ValidName(bad), "%q", bad)
	}
}

func FuzzUsersFile(f *testing.F) {
	for _, seed := range []string{
		"users: []", "users:\n- {name: a, password: \"" + goodArgon + "\"}", "users:\n  - name: a\n    password: '" + goodBcrypt + "'\n",
		"users: [[", "a: *b", "? x\n: y", "---\n---\n", "users: !!binary x", "users:\n- - - - -\n", "%YAML 1.1\n---\n", "users: |\n  x",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		u, err := parseUsers(src)
		if err != nil {
			if u != nil {
				t.Fatal("users beside an error")
			}
			return
		}
		if len(u.list) == 0 {
			t.Fatal("no decoy")
		}
		for name, h := range u.hashes {
			if _, err := parseHash(h.text); err != nil || !ValidName(name) {
				t.Fatalf("%q was taken", name)
			}
		}
	})
}
