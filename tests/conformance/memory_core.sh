#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
exec "$CACHEMW_BUILD/tests/conformance/conformance" --core memory size=64M
