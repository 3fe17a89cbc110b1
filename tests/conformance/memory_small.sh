#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# So small that everything is evicted all the time.
exec "$CACHEMW_BUILD/tests/conformance/conformance" memory size=4M
