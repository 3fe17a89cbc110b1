#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# with_redis.sh KIND [--core] [option=value]...: the suite against the provider
# redis, with servers of KIND that end with it; with --tiers it is the second of
# two tiers. Others may keep the machine busy for longer than a store would wait.
kind=$1
shift
core= tiers=
[ "$1" != --core ] || { core=$1; shift; }
[ "$1" != --tiers ] || { tiers=$1; shift; }
command -v "${CACHEMW_REDIS_SERVER:-redis-server}" >/dev/null \
    || { echo "redis-server is not installed"; exit 77; }
PYTHONPATH="$CACHEMW_SOURCE/tests/httpd" PYTHONDONTWRITEBYTECODE=1 \
exec /usr/bin/python3 -m harness.redis "$kind" -- \
    "$CACHEMW_BUILD/tests/conformance/conformance" $core \
    --load "$CACHEMW_BUILD/.libs/mod_cachemw_redis.so" \
    ${tiers:+--store near memory size=64M --store far} \
    redis 'url={url}' timeout=20s store_timeout=20s connect_timeout=10s "$@" \
    ${tiers:+multitier l1=near l2=far}
