#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Both ways: what the suite asks can be done.
set -e
"$CACHEMW_BUILD/tests/conformance/conformance" reference
"$CACHEMW_BUILD/tests/conformance/conformance" --core reference
