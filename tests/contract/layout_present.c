/* SPDX-License-Identifier: Apache-2.0 */

#include "mod_cachemw.h"

#define LAYOUT layout_present
#define LAYOUT_COUNT layout_present_count

#include "layout_rows.h"
