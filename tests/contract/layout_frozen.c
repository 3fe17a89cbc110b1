/* SPDX-License-Identifier: Apache-2.0 */

#include "mod_cachemw-1.h"

#define LAYOUT layout_frozen
#define LAYOUT_COUNT layout_frozen_count

#include "layout_rows.h"
