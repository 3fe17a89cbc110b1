#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
exec "$CACHEMW_SOURCE/tests/conformance/with_http.sh" tls 'ca_file={ca}' \
    'auth_token={token}' key_encoding=percent
