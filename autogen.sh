#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes ./configure from a checkout. A release tarball already has it.
set -e
cd "$(dirname "$0")"
exec autoreconf --install "$@"
