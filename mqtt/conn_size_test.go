package mqtt

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// TestAConnectionFitsItsSizeClass: the allocator gives a Conn that is one byte larger 64 bytes more, and there are tens of
// thousands of them.
func TestAConnectionFitsItsSizeClass(t *testing.T) {
	require.LessOrEqual(t, unsafe.Sizeof(Conn{}), uintptr(512))
}
