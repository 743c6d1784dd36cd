package mqtt

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// TestAConnectionFitsItsSizeClass: the allocator gives a Conn that is one byte larger 64 bytes more, and there are tens of
// thousands of them. Eight bytes of the 576 are the allocator's own: it has them in what is larger than 512 and holds
// pointers.
func TestAConnectionFitsItsSizeClass(t *testing.T) {
	require.LessOrEqual(t, unsafe.Sizeof(Conn{}), uintptr(576-8))
}
