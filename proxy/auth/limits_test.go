package auth

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/mqtt"
)

func TestAddressThatFailsTooOftenIsNotCheckedUntilItCools(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 10, usersFileOf(t, "dev1", "one", "dev2", "two"))
		for i := range 10 {
			b.refuses(password(fmt.Sprint("guess", i), "x"), mqtt.BadUserNameOrPassword)
		}
		refused := 0
		for i := range 30 { // a second each
			_, err := b.login(password(fmt.Sprint("more", i), "x"))
			var fault *mqtt.ProtocolFault
			require.ErrorAs(t, err, &fault)
			if fault.Code == mqtt.BadUserNameOrPassword {
				refused++
			}
		}
		require.LessOrEqual(t, refused, 7, "ten a minute")
		b.exhaust(strangers)
		b.refuses(password("dev1", "one"), mqtt.ServerBusy) // right, but not known to be
		b.accepts(passwordFrom("192.0.2.2", "dev1", "one"), "dev1")
		b.refuses(password("dev1", "one"), mqtt.ServerBusy) // right elsewhere is no proof here
		time.Sleep(time.Minute)
		b.accepts(password("dev1", "one"), "dev1")
	})
}

func TestDevicesBehindTheSameAddressGetInDespiteABadOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 5, usersFileOf(t, "dev1", "one", "dev2", "two"), JWT{Secret: secret}, Certificate{})
		b.accepts(password("dev1", "one"), "dev1")
		b.exhaust(strangers)
		b.accepts(password("dev1", "one"), "dev1")
		b.accepts(bearer(good(t, "HS256", []byte(secret))), "dev1") // no signature is guessed
		b.refuses(password("dev2", "two"), mqtt.ServerBusy)
	})
}

// TestOneDeviceWithAWrongPasswordHarmsNobody has a device that tries without end beside one that was never here, and
// both behind one address.
func TestOneDeviceWithAWrongPasswordHarmsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 10, usersFileOf(t, "dev1", "one", "dev2", "two", "bad", "x"))
		for range 200 { // more than three minutes
			_, err := b.login(password("bad", "y"))
			require.Error(t, err)
			require.False(t, b.limits.suspect(originOf(home)))
		}
		b.accepts(password("dev1", "one"), "dev1")
		time.Sleep(15 * time.Second)
		b.accepts(password("bad", "x"), "bad") // somebody has put it right
	})
}

// TestRememberedPasswordIsNotGuessed tries passwords of a user who is remembered, from a suspect address, where the
// right one would be found without being hashed.
func TestRememberedPasswordIsNotGuessed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 5, usersFileOf(t, "dev1", "one", "dev2", "two"))
		b.accepts(password("dev1", "one"), "dev1")
		b.accepts(password("dev2", "two"), "dev2")
		b.exhaust(func(i int) *mqtt.Login { return password("dev1", fmt.Sprint("guess", i)) })
		b.refuses(password("dev1", "one"), mqtt.ServerBusy)
		b.accepts(password("dev2", "two"), "dev2")
	})
}

// TestLoginsAtOnceAreNotMoreTries holds the limit against logins that all begin before the first has failed.
func TestLoginsAtOnceAreNotMoreTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 5, usersFileOf(t, "dev1", "one"))
		codes := make(chan mqtt.Code)
		for i := range 200 {
			go func() { // ends after the delay
				_, err := b.login(password("dev1", fmt.Sprint("guess", i)))
				codes <- err.(*mqtt.ProtocolFault).Code
			}()
		}
		count := map[mqtt.Code]int{}
		for range 200 {
			count[<-codes]++
		}
		require.LessOrEqual(t, count[mqtt.BadUserNameOrPassword], 5+cap(b.decoy.hasher))
		require.Equal(t, 200, count[mqtt.BadUserNameOrPassword]+count[mqtt.ServerBusy])
	})
}

func TestNoLimitChecksEveryLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 0, usersFileOf(t, "dev1", "one"))
		for range 12 {
			b.refuses(password("dev1", "x"), mqtt.BadUserNameOrPassword)
		}
		b.accepts(password("dev1", "one"), "dev1")
		require.Zero(t, b.limits.origins.buckets.Len())
	})
}

func TestFailuresAreCountedInConstantMemory(t *testing.T) {
	l, err := newLimits(10)
	require.NoError(t, err)
	before := heap()
	failAll := func(n int) {
		for i := range n {
			from := netip.AddrFrom4([4]byte{byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)})
			l.failed(&attempt{Login: password(fmt.Sprint(i), "x"), from: from}, refused)
		}
	}
	failAll(maxOrigins)
	full := heap()
	failAll(maxOrigins * 5 / 4)
	require.Equal(t, maxOrigins, l.origins.buckets.Len())
	require.Equal(t, maxOrigins, l.users.buckets.Len())
	t.Logf("%d bytes, then %d", full-before, heap()-before)
	require.Less(t, full-before, int64(40<<20))
	require.Less(t, heap()-full, int64(8<<20))
	runtime.KeepAlive(l)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestSuspectAddressCannotProbeNames: with no password at all, either.
func TestSuspectAddressCannotProbeNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 5, usersFileOf(t, "dev1", "one"))
		b.exhaust(strangers)
		for _, name := range []string{"dev1", "nobody"} {
			b.refuses(password(name, ""), mqtt.ServerBusy)
		}
	})
}
