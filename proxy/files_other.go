//go:build !unix

package proxy

// mostFiles returns 0: there is no limit.
func mostFiles() int { return 0 }
