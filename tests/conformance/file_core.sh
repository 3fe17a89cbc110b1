#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
exec "$CACHEMW_BUILD/tests/conformance/conformance" --core file \
    'cache_dir={tmp}/cache' max_bytes=64M dir_levels=2
