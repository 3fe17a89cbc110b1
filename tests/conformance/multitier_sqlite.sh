#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Others may keep the machine busy for longer than a store would wait.
exec "$CACHEMW_BUILD/tests/conformance/conformance" \
    --load "$CACHEMW_BUILD/.libs/mod_cachemw_sqlite.so" \
    --store near memory size=64M \
    --store far sqlite db_path={tmp}/cache.db max_bytes=96M busy_timeout=20s \
    synchronous=off multitier l1=near l2=far
