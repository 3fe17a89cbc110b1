#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What a hit on "memory" costs below the adapter, in instructions, which do not
# depend on the machine's speed or load; fails when that is more than the bound.
# For a build with the default CFLAGS.
#
#     tests/cost/hit_cost.sh BUILD
set -euo pipefail
build=$1
hits=100
status=0

# count KIND BOUND: $instructions
count()
{
    local log
    log=$(mktemp)
    GLIBC_TUNABLES=glibc.cpu.x86_rep_movsb_threshold=100000000 \
        valgrind --tool=callgrind --callgrind-out-file=/dev/null \
        --collect-atstart=no --toggle-collect=hit \
        "$build/tests/cost/hits" "$1" >"$log" 2>&1 \
        || { cat "$log"; rm -f "$log"; return 1; }
    instructions=$(sed -n 's/.*Collected : //p' "$log")
    rm -f "$log"
    instructions=$((instructions / hits))
    printf '%-8s %6d instructions, at most %d\n' "$1" "$instructions" "$2"
    # none at all: the function was not found
    [ "$instructions" -gt 500 ] && [ "$instructions" -le "$2" ]
}

# 3 % above what they were when this was written, with GCC 12
count plain 1639 || status=1
plain=$instructions
count varying 2910 || status=1
# plain in the near one of two tiers
count near 1840 || status=1
near=$instructions

# Tiers may cost 3 % of a hit. A whole one, of 1 KB with all that httpd does for
# it, took so many on "memory" by itself (callgrind, prefork), and 252 more in
# the near one of two tiers.
whole=29692
more=$((near - plain))
printf 'tiers    %6d instructions more, at most 3 %% of %d\n' $more $whole
[ $((more * 100)) -le $((whole * 3)) ] || status=1
exit $status
