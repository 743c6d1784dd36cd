package kafka

import "encoding/binary"

// PartitionOf gives the partition of a key in a topic of so many partitions, as Kafka's Java clients choose it.
func PartitionOf(key []byte, partitions int32) int32 {
	return partitionOf(murmur2(key), partitions)
}

func partitionOf(hash uint32, partitions int32) int32 {
	return int32(hash&0x7fffffff) % partitions
}

// murmur2 is org.apache.kafka.common.utils.Utils.murmur2.
func murmur2(data []byte) uint32 {
	const seed, m, r = 0x9747b28c, 0x5bd1e995, 24
	h := seed ^ uint32(len(data))
	for ; len(data) >= 4; data = data[4:] {
		k := binary.LittleEndian.Uint32(data) * m
		k ^= k >> r
		h = h*m ^ k*m
	}
	switch len(data) {
	case 3:
		h ^= uint32(data[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(data[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(data[0])) * m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}
