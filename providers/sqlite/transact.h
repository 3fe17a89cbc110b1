/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file transact.h
 * @brief Transactions that write: one at a time in a child, for all who wait.
 */
#ifndef MW_SQLITE_TRANSACT_H
#define MW_SQLITE_TRANSACT_H

#include "pool.h"

/**
 * Write, in one transaction, perhaps that of another thread which was about to
 * commit: `work` is then done by that one, while this one waits. When the
 * database is full, the oldest entries go and it is tried again.
 * @param wait µs for a connection and for locks
 * @return APR_TIMEUP: others were writing all the time; APR_ENOSPC: there is
 *         not so much room, or the disk is full; trouble
 */
apr_status_t mw_sql_transact(mw_sql_t *store, const cachemw_call_t *call,
                             apr_interval_time_t wait, mw_sql_work_fn *work,
                             void *baton);

#endif
