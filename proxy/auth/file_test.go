package auth

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/mqtt"
)

func TestUserWithTheRightPasswordGetsIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 0, usersFileOf(t, "dev1", "one", "dev2", "two"))
		for range 2 { // the second time from memory
			id := b.accepts(password("dev1", "one"), "dev1")
			require.Zero(t, id.Until)
		}
		b.accepts(password("dev2", "two"), "dev2")
	})
}

func TestWrongPasswordAndUnknownUserAreRefusedAlike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 0, usersFileOf(t, "dev1", "one", "dev2", "two"))
		nameless := password("", "one")
		nameless.HasUsername = false
		for _, l := range []*mqtt.Login{
			password("dev1", "two"), password("dev1", ""), password("dev3", "one"), password("dev3", ""), password("", "one"), nameless,
			password("DEV1", "one"), password("dev1", "one\x00"), {Remote: home},
		} {
			begin := time.Now()
			b.refuses(l, mqtt.BadUserNameOrPassword)
			require.GreaterOrEqual(t, time.Since(begin), meanDelay*3/4)
			require.Less(t, time.Since(begin), meanDelay*5/4)
		}
	})
}

// TestUnknownUserWaitsForTheSameTurn holds that names cannot be told by the time of an answer, without a clock: both
// kinds of wrong logins go through the place where passwords are hashed, which is full here.
func TestUnknownUserWaitsForTheSameTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 0, usersFileOf(t, "dev1", "one"))
		for range cap(b.decoy.hasher) {
			b.decoy.hasher <- struct{}{}
		}
		for _, user := range []string{"dev1", "nobody"} {
			begin := time.Now()
			b.refuses(password(user, "wrong"), mqtt.ServerBusy)
			require.Equal(t, hashWait, time.Since(begin))
		}
	})
}

func TestUnknownUserIsCheckedAgainstHashesOfTheFile(t *testing.T) {
	u, err := parseUsers([]byte(usersText(t, "a", "1", "b", "2", "c", "3")))
	require.NoError(t, err)
	seen := map[string]bool{}
	for i := range 100 {
		name := fmt.Sprint(i)
		require.Equal(t, u.decoy(name), u.decoy(name))
		seen[u.decoy(name).text] = true
	}
	require.Len(t, seen, 3)

	none, err := parseUsers([]byte("users: []"))
	require.NoError(t, err)
	require.Equal(t, nobody, none.decoy("x"))
	require.False(t, nobody.matches([]byte("x")))
}

func TestPasswordOfAnotherUserIsNoWayIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 0, usersFileOf(t, "dev1", "one"))
		b.accepts(password("dev1", "one"), "dev1")
		b.refuses(password("stranger", "one"), mqtt.BadUserNameOrPassword) // the decoy is the hash of dev1
	})
}

func TestRightPasswordIsHashedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 0, usersFileOf(t, "dev1", "one"))
		b.accepts(password("dev1", "one"), "dev1")
		for range cap(b.decoy.hasher) {
			b.decoy.hasher <- struct{}{} // nothing is hashed any more
		}
		for range 100 {
			b.accepts(password("dev1", "one"), "dev1")
		}
		b.refuses(password("dev1", "two"), mqtt.ServerBusy)
	})
}

func TestLoginThatEndsWhileItWaitsIsNotLetIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 0, usersFileOf(t, "dev1", "one"))
		for range cap(b.decoy.hasher) {
			b.decoy.hasher <- struct{}{}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		id, err := b.Authenticate(ctx, password("dev1", "one"))
		require.Nil(t, id)
		require.Error(t, err)
	})
}

func TestUsersFileIsReadAgainWhenItChanges(t *testing.T) {
	f := usersFileOf(t, "dev1", "one", "gone", "x")
	b := newBench(t, 0, f).start()
	b.accepts(password("dev1", "one"), "dev1")
	b.accepts(password("gone", "x"), "gone")

	write(t, f.Path, usersText(t, "dev1", "new", "dev2", "two"))
	eventually(t, func() bool {
		v, err := b.decides(password("dev2", "two"))
		return err == nil && v.outcome == accepted
	})
	b.accepts(password("dev1", "new"), "dev1")
	for _, l := range []*mqtt.Login{password("dev1", "one"), password("gone", "x")} {
		v, err := b.decides(l)
		require.NoError(t, err)
		require.Equal(t, refused, v.outcome)
	}
	require.Contains(t, b.log.String(), "was read again")
}

func TestUsersFileBehindASwappedLinkIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	mount := func(name, text string) {
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		write(t, filepath.Join(dir, name, "users.yaml"), text)
		require.NoError(t, os.Symlink(name, filepath.Join(dir, "..new")))
		require.NoError(t, os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data")))
	}
	mount("..1", usersText(t, "dev1", "one"))
	path := filepath.Join(dir, "users.yaml")
	require.NoError(t, os.Symlink("..data/users.yaml", path))
	b := newBench(t, 0, File{path}).start()
	mount("..2", usersText(t, "dev2", "two"))
	eventually(t, func() bool {
		v, err := b.decides(password("dev2", "two"))
		return err == nil && v.outcome == accepted
	})
}

func TestBadUsersFileKeepsTheUsers(t *testing.T) {
	f := usersFileOf(t, "dev1", "one")
	b := newBench(t, 0, f).start()
	write(t, f.Path, "users:\n  - name: dev1\n    password: letmein\n")
	eventually(t, func() bool { return strings.Contains(b.log.String(), "not taken") })
	b.accepts(password("dev1", "one"), "dev1")

	require.NoError(t, os.Remove(f.Path))
	eventually(t, func() bool { return strings.Contains(b.log.String(), "cannot read users file") })
	b.accepts(password("dev1", "one"), "dev1")

	write(t, f.Path, usersText(t, "dev1", "new"))
	eventually(t, func() bool {
		v, err := b.decides(password("dev1", "new"))
		return err == nil && v.outcome == accepted
	})
	require.NotContains(t, b.log.String(), "letmein")
	require.Contains(t, b.log.String(), "line 2")
}

func TestFileThatStaysBadIsToldOnce(t *testing.T) {
	b := newBench(t, 0, usersFileOf(t, "dev1", "one"))
	f := &files{log: b.Chain.log, metrics: b.metrics}
	path := filepath.Join(t.TempDir(), "users.yaml")
	write(t, path, usersText(t, "dev1", "one"))
	require.NoError(t, f.add("users file", path, b.decoy.load))
	for _, spoil := range []func(){
		func() { write(t, path, "users: 1") },
		func() { require.NoError(t, os.Remove(path)) },
	} {
		before := strings.Count(b.log.String(), "not taken")
		spoil()
		for range 3 {
			f.refresh(f.list[0])
		}
		require.Equal(t, before+1, strings.Count(b.log.String(), "not taken"))
	}
}

func TestHashPasswordMakesWhatTheFileTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text, err := HashPassword([]byte("s3cret"))
		require.NoError(t, err)
		again, err := HashPassword([]byte("s3cret"))
		require.NoError(t, err)
		require.NotEqual(t, text, again)
		path := filepath.Join(t.TempDir(), "users.yaml")
		write(t, path, "users: [{name: dev1, password: \""+text+"\"}]")
		b := newBench(t, 0, File{path})
		b.accepts(password("dev1", "s3cret"), "dev1")
		b.refuses(password("dev1", "s3cres"), mqtt.BadUserNameOrPassword)
	})
	_, err := HashPassword(nil)
	require.Error(t, err)
}
