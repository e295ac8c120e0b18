# make test works on a fresh machine that has Go: see .ci/setup for what it
# installs and starts. Everything else needs Go alone.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

# Tests with servers mostly wait, so several run at a time: two packages of this
# module and one of another, and within a package eight tests, which with one
# server version keeps two processors busy. With the race detector, and with all
# tests, that is too much: failovers would wait for processor time, and tests
# would take that for a fault.
M           ?= 2
P           ?= 2
TIMEOUT     ?= 30m
TESTFLAGS   ?= -parallel 8
FUZZTIME    ?= 20s
BENCH       ?= .
BENCHFLAGS  ?= -benchmem

# The linters. Their rules are in staticcheck.conf and revive.toml.
GOFUMPT     ?= mvdan.cc/gofumpt@v0.12.0
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.8.2
ERRORLINT   ?= github.com/polyfloyd/go-errorlint@v1.8.0
UNPARAM     ?= mvdan.cc/unparam@v0.0.0-20260823230713-2fa3d841b0c8
REVIVE      ?= github.com/mgechev/revive@v1.13.0

# All modules of the repository, this one first.
MODULES := $(sort $(dir $(shell find . -name go.mod -not -path './.*/*')))

.PHONY: help
help: ## what there is to make
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18
	echo
	echo '  Flags for go come by GOFLAGS, as in GOFLAGS=-race make test.'
	echo '  FANOUT_REQUIRE_DOCKER=1 lets no test do without containers.'
	echo '  FANOUT_TEST_ALL=1 make test is make test-all.'

.PHONY: test
test: ## set up what tests need, and run them, on one server version
	@. .ci/setup
	status=0
	# packages lists the packages whose tests start servers or, with !, the others
	# that have tests.
	packages() {
	  go list -test -f '{{if eq .Name "main"}}{{.ImportPath}} {{.Deps}}{{end}}' ./... |
	    sed -n "/internal\/redistest/$${1:-}{ s/\.test .*//p; }"
	}
	# The packages that take longest are first: they decide when all have ended.
	root="./sharded ./internal/redistest ./adapter/redis . ./internal/redispubsub ./adapter/partition ./adapter/migrate ./..."
	if [ "$${FANOUT_TEST_ALL:-}" = 1 ]; then
	  # Tests without servers only need processor time, so they take all of it
	  # first, whatever P, M and TESTFLAGS are. The order of locks is checked there
	  # too, which -race has no part in.
	  computing=$$(packages !)
	  root=$$(packages)
	  if [ -z "$$computing" ] || [ -z "$$root" ]; then echo 'make test: no packages found'; exit 1; fi
	  go test -p 2 -vet=off -timeout $(TIMEOUT) . $$computing || status=1
	  flags=$${GOFLAGS:-}
	  FANOUT_TEST_ALL= GOFLAGS=$${flags//-race/} go test -p 2 -vet=off -tags lockcheck -timeout $(TIMEOUT) . ./internal/locks ./internal/roomlog ./internal/work ./internal/reading ./internal/publishing ./internal/questions ./internal/lookout ./internal/announcer || status=1
	fi
	# module tests the module in a folder.
	module() {
	  cd "$$1"
	  local these=./...
	  if [ "$$1" = ./ ]; then these=$$root; fi
	  go test -p $(P) -vet=off -timeout $(TIMEOUT) $(TESTFLAGS) $$these # make lint vets
	}
	export root
	export -f module
	# xargs continues with other modules if one has failed.
	printf '%s\n' ./ $(filter-out ./,$(MODULES)) | xargs -P $(M) -I{} bash -euo pipefail -c 'module {}' || status=1
	exit $$status

.PHONY: test-all
test-all: ## make test, and other server versions, long fault suites and soak
	@FANOUT_TEST_ALL=1 $(MAKE) --no-print-directory test M=1 P=1 TESTFLAGS="-parallel 3"

.PHONY: lint
lint: ## gofumpt, vet, staticcheck, errorlint, unparam and revive, in all modules
	@status=0
	# check MODULE COMMAND… names the command, and goes on if it finds something.
	check() {
	  local module=$$1; shift
	  echo "== $$module $$*" | sed -E 's/ go run [^ ]*\/([a-z-]+)@[^ ]*/ \1/; s| -config [^ ]*||'
	  (cd "$$module" && "$$@") 2>&1 || status=1
	}
	unformatted=$$(go run $(GOFUMPT) -l .)
	if [ -n "$$unformatted" ]; then
	  printf 'gofumpt -w would change:\n%s\n' "$$unformatted"
	  status=1
	fi
	for m in $(MODULES); do
	  check "$$m" go vet ./...
	  check "$$m" go run $(STATICCHECK) ./...
	  check "$$m" go run $(ERRORLINT) ./...
	  check "$$m" go run $(UNPARAM) ./...
	  check "$$m" go run $(REVIVE) -config "$(CURDIR)/revive.toml" ./...
	done
	# The build tag lockcheck changes package locks, and so what others compile to.
	check ./ go vet -tags lockcheck ./...
	check ./ go run $(STATICCHECK) -tags lockcheck ./...
	exit $$status

# The machines: packages of internal/ without a lock, clock, goroutine or I/O.
MACHINES := ask batch control few follow history item life linked once outbox peers presence redispubsub/feed redispubsub/seats replay sequence watch

.PHONY: cover
cover: ## how much of each machine its own unit tests reach; less than 90 % fails
	@go test -cover $(MACHINES:%=./internal/%) | awk '
	  { print }
	  match($$0, /[0-9.]+%/) { if (substr($$0, RSTART, RLENGTH-1) + 0 < 90) low = low " " $$2 }
	  !/^ok/ { failed = 1 }
	  END { if (low) print "less than 90 %:" low; exit failed || low != "" }'

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (20s)
	@grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sort |
	while IFS=: read -r file func; do
	  name=$${func#func }
	  echo "== $$name of $$(dirname "$$file"), $(FUZZTIME)"
	  (cd "$$(dirname "$$file")" && go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) . </dev/null)
	done

.PHONY: bench
bench: ## run the benchmarks; BENCH names which, BENCHFLAGS adds flags
	@. .ci/setup
	for m in $(MODULES); do
	  (cd "$$m" && go test -p 1 -timeout 60m -run '^$$' -bench '$(BENCH)' $(BENCHFLAGS) ./...)
	done
