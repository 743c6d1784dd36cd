package fleet

import "errors"

var (
	// ErrNewerVersion says that a record was written by a later version of this program, whose rules are unknown
	// here. An instance that reads one must not go on.
	ErrNewerVersion = errors.New("record of a newer version")
	// ErrMalformed says that a record is none of ours. It is left out of the fold.
	ErrMalformed = errors.New("malformed record")
)
