#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# So small that everything is evicted all the time.
exec "$CACHEMW_BUILD/tests/conformance/conformance" file \
    'cache_dir={tmp}/cache' max_bytes=4M max_entries=300 dir_levels=0 \
    index_size=1M
