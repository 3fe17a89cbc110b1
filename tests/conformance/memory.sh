#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
exec "$CACHEMW_BUILD/tests/conformance/conformance" memory size=96M
