package auth

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestEqualQuestionsAreAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &flights{under: map[digest]*flight{}}
		asked, done := 0, make(chan outcome)
		for range 20 {
			go func() { // ends with its answer
				v, err := f.do(t.Context(), digest{}, func(context.Context) (verdict, error) {
					asked++
					time.Sleep(time.Second)
					return verdict{outcome: accepted}, nil
				})
				require.NoError(t, err)
				done <- v.outcome
			}()
		}
		for range 20 {
			require.Equal(t, accepted, <-done)
		}
		require.Equal(t, 1, asked)
		require.Empty(t, f.under)
	})
}

func TestQuestionOfADeviceThatLeftIsAskedAgainForTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &flights{under: map[digest]*flight{}}
		ask := func(ctx context.Context) (verdict, error) {
			select {
			case <-ctx.Done():
				return verdict{}, ctx.Err()
			case <-time.After(time.Minute):
				return verdict{outcome: accepted}, nil
			}
		}
		first, leave := context.WithCancel(t.Context())
		results := make(chan error, 2)
		go func() { // ends when it leaves
			_, err := f.do(first, digest{}, ask)
			results <- err
		}()
		synctest.Wait()
		go func() { // ends with its answer
			v, err := f.do(t.Context(), digest{}, ask)
			require.Equal(t, accepted, v.outcome)
			results <- err
		}()
		synctest.Wait()
		leave()
		require.ErrorIs(t, <-results, context.Canceled)
		require.NoError(t, <-results)
	})
}

func TestPanicOfAQuestionIsAFailureForTheOthers(t *testing.T) {
	f := &flights{under: map[digest]*flight{}}
	own, _ := f.join(digest{})
	require.Panics(t, func() {
		f.lead(t.Context(), digest{}, own, func(context.Context) (verdict, error) { panic("x") })
	})
	<-own.done
	require.ErrorIs(t, own.err, errAborted)
	require.Empty(t, f.under)
}
