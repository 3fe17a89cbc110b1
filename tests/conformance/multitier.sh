#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
exec "$CACHEMW_BUILD/tests/conformance/conformance" \
    --store near memory size=64M \
    --store far file 'cache_dir={tmp}/far' max_bytes=96M \
    multitier l1=near l2=far
