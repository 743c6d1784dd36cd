package mqtt

// What a set is made of.
const (
	setBits = 4 // of the hash choose a part
	setFew  = 8 // members at most that are not parted
)

// A set holds members by their hashes, few or a million. It is never changed: with and without copy what
// differs, which is in proportion to the logarithm. nil is the empty set.
type set[E element[E]] struct {
	few   []member[E] // all of them; more than setFew only if no bit of the hashes is left
	parts *parts[E]   // else
}

// same says whether two elements take each other's place.
type element[E any] interface{ same(E) bool }

type member[E any] struct {
	hash  uint64
	value E
}

type parts[E element[E]] struct {
	n    int // members of all
	sets [1 << setBits]*set[E]
}

func memberOf[E any](hash uint64, value E) member[E] { return member[E]{hash, value} }

// near gives the members among which one with this hash is.
func (t *set[E]) near(hash uint64) []member[E] {
	for t != nil && t.parts != nil {
		t = t.parts.sets[hash%(1<<setBits)]
		hash >>= setBits
	}
	if t == nil {
		return nil
	}
	return t.few
}

func (t *set[E]) has(m member[E]) bool { return place(t.near(m.hash), m) >= 0 }

func place[E element[E]](few []member[E], m member[E]) int {
	for i := range few {
		if few[i].hash == m.hash && few[i].value.same(m.value) {
			return i
		}
	}
	return -1
}

func (t *set[E]) appendTo(dst []E) []E {
	if t == nil {
		return dst
	}
	for i := range t.few {
		dst = append(dst, t.few[i].value)
	}
	if t.parts != nil {
		for _, part := range t.parts.sets {
			dst = part.appendTo(dst)
		}
	}
	return dst
}

// with gives t with m, and says whether m replaced the same. The hash is used from the bit used on.
func (t *set[E]) with(m member[E], used uint) (_ *set[E], replaced bool) {
	switch {
	case t == nil:
		return &set[E]{few: []member[E]{m}}, false
	case t.parts == nil:
		return t.withFew(m, used)
	}
	p := *t.parts
	part := m.hash >> used % (1 << setBits)
	p.sets[part], replaced = p.sets[part].with(m, used+setBits)
	if !replaced {
		p.n++
	}
	return &set[E]{parts: &p}, replaced
}

func (t *set[E]) withFew(m member[E], used uint) (_ *set[E], replaced bool) {
	if i := place(t.few, m); i >= 0 {
		few := append([]member[E](nil), t.few...)
		few[i] = m
		return &set[E]{few: few}, true
	}
	few := make([]member[E], len(t.few)+1) // not appended to: no room to spare in a million of them
	copy(few, t.few)
	few[len(t.few)] = m
	if len(few) <= setFew || used >= 64 {
		return &set[E]{few: few}, false
	}
	p := &parts[E]{n: len(few)}
	for _, m := range few {
		part := m.hash >> used % (1 << setBits)
		p.sets[part], _ = p.sets[part].with(m, used+setBits)
	}
	return &set[E]{parts: p}, false
}

// without gives t without m, which is in it. Parts are joined at half of what parted them, so that one
// member that comes and goes does not part and join them each time.
func (t *set[E]) without(m member[E], used uint) *set[E] {
	if t.parts == nil {
		if len(t.few) == 1 {
			return nil
		}
		i := place(t.few, m)
		few := make([]member[E], 0, len(t.few)-1)
		return &set[E]{few: append(append(few, t.few[:i]...), t.few[i+1:]...)}
	}
	p := *t.parts
	p.n--
	part := m.hash >> used % (1 << setBits)
	p.sets[part] = p.sets[part].without(m, used+setBits)
	if p.n > setFew/2 {
		return &set[E]{parts: &p}
	}
	few := make([]member[E], 0, p.n)
	for _, part := range p.sets {
		if part != nil {
			few = append(few, part.few...) // none of them is parted: it would have more than setFew/2
		}
	}
	return &set[E]{few: few}
}
