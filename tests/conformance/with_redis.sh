#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# with_redis.sh KIND [--core] [option=value]...: the suite against the provider
# redis, with servers of KIND that end with it. Others may keep the machine busy
# for longer than a store would wait.
kind=$1
shift
core=
[ "$1" != --core ] || { core=$1; shift; }
command -v "${CACHEMW_REDIS_SERVER:-redis-server}" >/dev/null \
    || { echo "redis-server is not installed"; exit 77; }
PYTHONPATH="$CACHEMW_SOURCE/tests/httpd" PYTHONDONTWRITEBYTECODE=1 \
exec /usr/bin/python3 -m harness.redis "$kind" -- \
    "$CACHEMW_BUILD/tests/conformance/conformance" $core \
    --load "$CACHEMW_BUILD/.libs/mod_cachemw_redis.so" \
    redis 'url={url}' timeout=20s store_timeout=20s connect_timeout=10s "$@"
