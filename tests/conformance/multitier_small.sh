#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Nearly everything is found in the far tier.
exec "$CACHEMW_BUILD/tests/conformance/conformance" \
    --store near memory size=1M shards=1 \
    --store far memory size=8M max_entries=1000 \
    multitier l1=near l2=far
