# SPDX-License-Identifier: Apache-2.0
# What the scripts share. Sourced by bash, with $source set to the top folder.
# shellcheck shell=bash disable=SC2154

say() { printf '\n==> %s\n' "$*"; }

die()
{
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# configure_in DIR [configure argument ...]: unless that has been done, with
# these arguments. It may exit; its variables are then those that the EXIT trap
# of the script sees, so none has the name of a script's own.
configure_in()
{
    local into=$1
    shift
    # A build elsewhere would take objects of the one in the source for its own.
    [ ! -e "$source/config.status" ] \
        || die "the source is configured: make distclean"
    if [ ! -x "$source/configure" ] || [ ! -d "$source/build-aux" ] \
        || [ "$source/configure.ac" -nt "$source/configure" ] \
        || [ "$source/Makefile.am" -nt "$source/Makefile.in" ]; then
        (cd "$source" && quietly ./autogen.sh)
    fi
    mkdir -p "$into"
    if [ ! -f "$into/Makefile" ] \
        || [ "$source/configure" -nt "$into/config.status" ] \
        || [ "$*" != "$(cat "$into/configured-with" 2>/dev/null)" ]; then
        rm -f "$into/configured-with"
        (cd "$into" && quietly "$source/configure" "$@" && quietly make clean)
        printf '%s\n' "$*" >"$into/configured-with"
    fi
}

# build_in DIR [configure argument ...]: builds all but the tests
build_in()
{
    configure_in "$@"
    make -C "$1" -j"$(nproc)" --no-print-directory
}

# quietly COMMAND: its output is shown only when it fails
quietly()
{
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 || status=$?
    [ $status = 0 ] || cat "$log" >&2
    rm -f "$log"
    return $status
}

# is_allowed_skip NAME: whether tests/allowed-skips.txt has it, as conftest.py
# reads that file: one pattern a line, # starts a comment
is_allowed_skip()
{
    local pattern rest
    while read -r pattern rest; do
        # shellcheck disable=SC2254
        case $1 in
        $pattern) return 0 ;;
        esac
    done < <(sed 's/#.*//; /^[[:space:]]*$/d' "$source/tests/allowed-skips.txt")
    return 1
}

# show_cmocka DIR: what `make check` ran in the build DIR; fails on a skip
# that is not allowed by name, which is PROGRAM::TEST
show_cmocka()
{
    local status=0 log program name
    while read -r log; do
        program=${log%.log}
        name=$(sed -nE 's/^\[ +(PASSED|FAILED) +\] ([0-9]+) test.*/\2 \1,/p' \
            "$1/$log" | tr '\n' ' ' | tr '[:upper:]' '[:lower:]')
        echo "$program: ${name%, }"
        while read -r name; do
            if is_allowed_skip "$program::$name"; then
                echo "    skipped, as allowed: $name"
            else
                echo "    skipped, but not named in tests/allowed-skips.txt:" \
                    "$program::$name"
                status=1
            fi
        done < <(
            sed -nE 's/^\[ +SKIPPED +\] ([A-Za-z_]\w*)$/\1/p' "$1/$log" | sort -u
            grep -q '^:test-result: SKIP' "$1/$program.trs" && echo "the program")
    done < <(cd "$1" && find tests -name '*.trs' | sed 's/\.trs$/.log/' | sort)
    return $status
}

# run_httpd_tests BUILD MPM [pytest argument ...]
run_httpd_tests()
{
    local build=$1 mpm=$2
    shift 2
    CACHEMW_BUILD=$build CACHEMW_TEST_MPM=$mpm PYTHONDONTWRITEBYTECODE=1 \
        /usr/bin/python3 -m pytest "$source/tests/httpd" "$@"
}

# run_ctl_tests BUILD [pytest argument ...]
run_ctl_tests()
{
    local build=$1
    shift
    CACHEMW_BUILD=$build PYTHONDONTWRITEBYTECODE=1 \
        /usr/bin/python3 -m pytest "$source/tests/ctl" "$@"
}

# run_store_tests BUILD MPM STORE [pytest argument ...]: those of the tests on
# httpd that hold for every provider, with another one than memory
run_store_tests()
{
    local build=$1 mpm=$2
    local CACHEMW_TEST_STORE=$3
    export CACHEMW_TEST_STORE
    shift 3
    run_httpd_tests "$build" "$mpm" -m "store and not long" "$@"
}

# in files; not where a test has its own store of them
file_store='file cache_dir=@DIR@/files max_bytes=512M'
# in a database; with CACHEMW_TEST_MODULES=cachemw_sqlite
sqlite_store='sqlite db_path=@DIR@/cache/tests.db busy_timeout=5s'

# run_tiers_tests BUILD MPM FAR [pytest argument ...]: those, with a store in
# memory in front of one of the provider FAR; three: with one in files between
# it and one in a database
run_tiers_tests()
{
    local build=$1 mpm=$2 far=$3
    local tiers='multitier l1=near l2=far'
    local near='CachemwStore near memory size=256M max_object_size=48M'
    local CACHEMW_TEST_MODULES=cachemw_sqlite CACHEMW_TEST_PRELUDE
    export CACHEMW_TEST_MODULES CACHEMW_TEST_PRELUDE
    shift 3
    case $far in
    file) CACHEMW_TEST_PRELUDE="$near"$'\n'"CachemwStore far $file_store" ;;
    sqlite) CACHEMW_TEST_PRELUDE="$near"$'\n'"CachemwStore far $sqlite_store" ;;
    three)
        CACHEMW_TEST_PRELUDE="$near"$'\n'"CachemwStore far $file_store"
        CACHEMW_TEST_PRELUDE+=$'\n'"CachemwStore last $sqlite_store"
        tiers+=' l3=last'
        ;;
    redis)
        tiers_before=$near run_redis_tests "$build" "$mpm" standalone "$@"
        return
        ;;
    http)
        tiers_before=$near run_http_tests "$build" "$mpm" "$http_service" "$@"
        return
        ;;
    esac
    run_store_tests "$build" "$mpm" "$tiers" "$@"
}

# place_store STORE: $place is what makes env have it under test; behind
# $tiers_before, where that is set
place_store()
{
    place=(CACHEMW_TEST_STORE="$1")
    [ -z "${tiers_before-}" ] \
        || place=(CACHEMW_TEST_STORE='multitier l1=near l2=far'
            CACHEMW_TEST_PRELUDE="$tiers_before"$'\n'"CachemwStore far $1")
}

# run_redis_tests BUILD MPM KIND [pytest argument ...]: those, with a store in
# Redis servers of their own, of a KIND that harness.redis knows
run_redis_tests()
{
    local build=$1 mpm=$2 kind=$3
    local options="timeout=2s store_timeout=2s connect_timeout=2s"
    local place
    shift 3
    [ "$kind" != tls ] \
        || options+=" ssl_ca_certs={ca} ssl_certfile={cert} ssl_keyfile={key}"
    place_store "redis url={url} $options"
    CACHEMW_BUILD=$build CACHEMW_TEST_MPM=$mpm PYTHONDONTWRITEBYTECODE=1 \
    CACHEMW_TEST_MODULES=cachemw_redis PYTHONPATH="$source/tests/httpd" \
        /usr/bin/python3 -m harness.redis "$kind" -- env "${place[@]}" \
        /usr/bin/python3 -m pytest "$source/tests/httpd" \
        -m "store and not long" "$@"
}

http_service='harness.service etags'
# an httpd with our handler
api_service='harness.api memory size=512M max_object_size=16M'

# run_http_tests BUILD MPM SERVICE [pytest argument ...]: those, with a store
# behind a cache service of their own, $http_service or $api_service
run_http_tests()
{
    local build=$1 mpm=$2 service=$3
    local store="http base_url={url} auth_token={token} max_object_size=16M"
    store+=" timeout=2s store_timeout=2s connect_timeout=2s"
    local place
    shift 3
    place_store "$store"
    place+=(CACHEMW_TEST_STORE_LARGE="${place[0]#*=}")
    # shellcheck disable=SC2086
    CACHEMW_BUILD=$build CACHEMW_TEST_MPM=$mpm PYTHONDONTWRITEBYTECODE=1 \
    CACHEMW_TEST_MODULES=cachemw_http PYTHONPATH="$source/tests/httpd" \
        /usr/bin/python3 -m $service -- \
        env "${place[@]}" /usr/bin/python3 -m pytest "$source/tests/httpd" \
        -m "store and not long" "$@"
}

# fuzz_target DIR SECONDS NAME CORPUS: over a copy of the seeds; what made it
# fail stays in DIR
fuzz_target()
{
    echo "fuzz_$3:"
    rm -rf "$1/found"
    mkdir "$1/found"
    (cd "$1" && "tests/fuzz/fuzz_$3" found "$source/tests/fuzz/$4" \
        -max_total_time="$2" -timeout=10 -rss_limit_mb=2048 -max_len=65536 \
        -artifact_prefix=./ -print_final_stats=1 -verbosity=0)
}

# fuzz_all DIR SECONDS: builds the fuzz targets in DIR and runs them for SECONDS,
# all together
fuzz_all()
{
    configure_in "$1" CC=clang CFLAGS='-g -O1' --enable-fuzzer --enable-werror \
        || return 1
    make -C "$1" -j"$(nproc)" --no-print-directory fuzz || return 1
    fuzz_target "$1" $(($2 / 2)) entry corpus \
        && fuzz_target "$1" $(($2 / 2)) http_value corpus_http_value
}
