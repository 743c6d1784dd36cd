package sim

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A mutant is the driver, or a machine, with a fault that was there once.
type mutant struct {
	name      string
	file      string // below fleet
	old, new  string
	says      string
	schedules string
}

var mutants = []mutant{
	{"a claim by the same instance drops the QoS 2 ids that are received", "claim.go",
		"	if !s.IsLast() {\n		s.Received, s.Pending = nil, nil\n	}\n", "	s.Received, s.Pending = nil, nil\n", "nobody has died", "5000"},
	{"a session without expiry is resumed at a takeover", "claim.go",
		"if s := base.session(); s.Expiry > 0 {", "if s := base.session(); true {", "resurrected", "5000"},
	{"a return to the same instance takes the place of its Will", "claim.go",
		"	if s == nil || s.Will == nil {\n		return false\n	}\n", "	if s == nil || s.Will == nil || true {\n		return false\n	}\n", "never published", "5000"},
	{"who tells of a message that was let go writes under the key of another", "driver/conn.go",
		"			h := c.p.holder(c.h.id, inc)\n", "			h := c.h\n", "published", "40000"},
	{"a connection that departs does not notice that another has the client ID", "driver/holder.go",
		"if c := cmp.Or(h.conn, h.departing); c != nil {\n		c.ids.broken", "if c := h.conn; c != nil {\n		c.ids.broken", "in two records", "20000"},
	{"a verdict on who has tried to return wakes nobody's Will", "driver/part.go",
		"range p.table.ClientsOf(name) {", "range p.table.ClientsOf(\"\") {", "was never", "20000"},
	{"a delayed Will whose time is not noted while another is asked for", "driver/holder.go",
		"duty == fleet.DutyWill && at > now { // another", "duty == fleet.DutyWill && at > now && false { // another", "never published", "40000"},
	{"a verdict that is read before the name is known here is missed", "driver/driver.go",
		"	if by, judged := d.verdict(inc); judged {\n", "	if by, judged := d.verdict(inc); judged && by == \"\" {\n", "does not come to rest", "20000"},
	{"an expired session is resumed", "view.go", "	return ok && at <= now\n", "	return ok && at <= now && false\n", "had expired", "5000"},
	{"a session does not end with DISCONNECT expiry 0", "driver/conn.go",
		"	final.Expiry, final.OfflineSince = l.Expiry, at\n", "	final.Expiry, final.OfflineSince = c.expiry, at\n", "has ended at", "5000"},
	{"a CONNECT that is given up changes how long the session lasts", "claim.go",
		"		expiry = max(expiry, resumed.Expiry) // until Told\n", "", "session lost", "20000"},
	{"a clean start makes a delayed Will due before it has opened", "claim.go",
		"	if !clear {\n		return acts\n	}\n	return append(acts, c.open(v, resumed)...)",
		"	if owes := clear && c.owesWill(v, resumed) && !c.clear.waited; !clear || owes && slices.Contains(c.wills, c.book.StateEpoch) {\n		return acts\n	} else if owes {\n		return append(acts, c.publish(c.book.StateEpoch, c.book.Will))\n	}\n	return append(acts, c.open(v, resumed)...)", "although the device was back", "20000"},
}

// TestSimulatorFindsMutants: each fault that is put back is found.
func TestSimulatorFindsMutants(t *testing.T) {
	if os.Getenv("SLUICE_MUTANTS") == "" {
		t.Skip("each is built: make mutants runs them")
	}
	fleet, err := filepath.Abs("..")
	require.NoError(t, err)
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(fleet, m.file)
			source, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, 1, strings.Count(string(source), m.old), "the place in %s", m.file)
			mutated := filepath.Join(dir, "mutated.go")
			require.NoError(t, os.WriteFile(mutated, []byte(strings.Replace(string(source), m.old, m.new, 1)), 0o600))
			overlay, err := json.Marshal(map[string]map[string]string{"Replace": {path: mutated}})
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dir, "overlay"), overlay, 0o600))
			run := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-timeout=3h", "-vet=off", "-overlay", filepath.Join(dir, "overlay"), "-run", "TestProtocolHoldsInAnySchedule", ".")
			run.Env = append(os.Environ(), "SLUICE_SCHEDULES="+m.schedules, "SLUICE_STOP=1")
			out, err := run.CombinedOutput()
			require.Error(t, err, "it is not found in %s schedules", m.schedules)
			require.Contains(t, string(out), m.says)
			t.Log(strings.TrimSpace(string(out[strings.Index(string(out), "SLUICE_SEED="):][:90])))
		})
	}
}
