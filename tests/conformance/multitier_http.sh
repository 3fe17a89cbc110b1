#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
exec "$CACHEMW_SOURCE/tests/conformance/with_http.sh" etags --tiers \
    max_object_size=16M
