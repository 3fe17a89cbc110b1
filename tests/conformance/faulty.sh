#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A module of its own, around another store: without faults it adds none.
exec "$CACHEMW_BUILD/tests/conformance/conformance" \
    --load "$CACHEMW_BUILD/tests/providers/faulty/.libs/mod_cachemw_faulty.so" \
    --store inner memory size=64M faulty inner=inner
