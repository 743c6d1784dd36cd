package kafka

// A Budget bounds the bytes held in memory for records that Kafka has not acknowledged.
type Budget struct{}

// TryTake takes n bytes if they are free and nobody waits.
func (b *Budget) TryTake(n int) bool { return true }

// Take takes n bytes, free or not.
func (b *Budget) Take(n int) {}

// Give gives n bytes back.
func (b *Budget) Give(n int) {}

// OnRoom calls wake once when n bytes are free.
func (b *Budget) OnRoom(n int, wake func()) {}

// InUse gives how many bytes are taken.
func (b *Budget) InUse() int64 { return 0 }

// Max gives how many bytes may be taken.
func (b *Budget) Max() int64 { return 0 }
