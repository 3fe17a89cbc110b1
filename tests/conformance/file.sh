#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
exec "$CACHEMW_BUILD/tests/conformance/conformance" file \
    'cache_dir={tmp}/cache' max_bytes=96M
