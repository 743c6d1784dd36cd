package bench

import "sort"

// A run is the numbers from first to last.
type run struct{ first, last uint64 }

// runs is a set of numbers that takes memory for its gaps alone: a device's messages are acknowledged and stored in
// their order, so an hour of them is one run.
type runs []run

// add puts n into the set and reports whether it is new.
func (r *runs) add(n uint64) bool {
	s := *r
	if k := len(s); k > 0 && s[k-1].last+1 == n { // nearly always
		s[k-1].last = n
		return true
	}
	i := sort.Search(len(s), func(i int) bool { return s[i].last >= n }) // the first that does not end before n
	if i < len(s) && s[i].first <= n {
		return false
	}
	before := i > 0 && s[i-1].last+1 == n
	after := i < len(s) && s[i].first == n+1
	switch {
	case before && after:
		s[i-1].last = s[i].last
		*r = append(s[:i], s[i+1:]...)
	case before:
		s[i-1].last = n
	case after:
		s[i].first = n
	default:
		s = append(s, run{})
		copy(s[i+1:], s[i:])
		s[i] = run{n, n}
		*r = s
	}
	return true
}

func (r runs) has(n uint64) bool {
	i := sort.Search(len(r), func(i int) bool { return r[i].last >= n })
	return i < len(r) && r[i].first <= n
}

func (r runs) count() (n int) {
	for _, one := range r {
		n += int(one.last - one.first + 1)
	}
	return n
}

// without gives what is in r and not in other.
func (r runs) without(other runs) (left runs) {
	for _, one := range r {
		for len(other) > 0 && other[0].last < one.first {
			other = other[1:]
		}
		for i := 0; i < len(other) && other[i].first <= one.last; i++ {
			if one.first < other[i].first {
				left = append(left, run{one.first, other[i].first - 1})
			}
			one.first = max(one.first, other[i].last+1)
		}
		if one.first <= one.last {
			left = append(left, one)
		}
	}
	return left
}
