#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Others may keep the machine busy for longer than a store would wait.
exec "$CACHEMW_BUILD/tests/conformance/conformance" \
    --load "$CACHEMW_BUILD/.libs/mod_cachemw_sqlite.so" \
    --store l1 memory size=1M --store l2 file 'cache_dir={tmp}/l2' max_bytes=4M \
    --store l3 sqlite db_path={tmp}/cache.db max_bytes=4M busy_timeout=20s \
    max_entries=1000 synchronous=off \
    multitier l1=l1 l2=l2 l3=l3
