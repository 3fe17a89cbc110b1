#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
exec "$CACHEMW_SOURCE/tests/conformance/with_redis.sh" standalone --tiers
