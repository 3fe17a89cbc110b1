#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Eviction keeps up with LRU, and withstands scans and floods; the same seeds
# give the same table.
set -e
all=$("$CACHEMW_BUILD/bench/hitratio" --quick) || {
    printf '%s\n' "$all"
    exit 1
}
one=$("$CACHEMW_BUILD/bench/hitratio" --quick --requests 20000 --trace flood) || :
two=$("$CACHEMW_BUILD/bench/hitratio" --quick --requests 20000 --trace flood) || :
[ -n "$one" ] && [ "$one" = "$two" ]
