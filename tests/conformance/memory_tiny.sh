#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The smallest there is: hardly anything fits beside what is under way.
exec "$CACHEMW_BUILD/tests/conformance/conformance" memory size=1M
