#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# with_http.sh KIND [--core] [option=value]...: the suite against the provider
# http, with a service of KIND that ends with it; with --tiers it is the second
# of two tiers. Others may keep the machine busy for longer than a store would
# wait. CACHEMW_UNDER: what the suite, but not the service, runs under.
kind=$1
shift
core= tiers=
[ "$1" != --core ] || { core=$1; shift; }
[ "$1" != --tiers ] || { tiers=$1; shift; }
PYTHONPATH="$CACHEMW_SOURCE/tests/httpd" PYTHONDONTWRITEBYTECODE=1 \
exec /usr/bin/python3 -m harness.service "$kind" -- ${CACHEMW_UNDER-} \
    "$CACHEMW_BUILD/tests/conformance/conformance" $core \
    --seconds 1200 \
    --load "$CACHEMW_BUILD/.libs/mod_cachemw_http.so" \
    ${tiers:+--store near memory size=64M --store far} \
    http 'base_url={url}' timeout=20s store_timeout=20s connect_timeout=10s "$@" \
    ${tiers:+multitier l1=near l2=far}
