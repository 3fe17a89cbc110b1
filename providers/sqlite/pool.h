/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file pool.h
 * @brief The connections of a child, and transactions that write.
 */
#ifndef MW_SQLITE_POOL_H
#define MW_SQLITE_POOL_H

#include "sqlite.h"

/**
 * child_init: open a connection, so that no request has to wait for it; what
 * cannot be had now is tried again when it is needed, like further ones.
 */
void mw_sql_pool_begin(mw_sql_t *store, apr_pool_t *pchild);

/** How long a call may wait: busy_timeout, or what is left to it. µs. */
apr_interval_time_t mw_sql_patience(const mw_sql_t *store,
                                    const cachemw_call_t *call);

/** The same for what would leave a wrong page if it were not done: longer. */
apr_interval_time_t mw_sql_patience_to_remove(const mw_sql_t *store,
                                              const cachemw_call_t *call);

/**
 * What is done with a connection that one thread has for itself. It leaves no
 * statement under way.
 */
typedef int mw_sql_work_fn(mw_sql_t *store, mw_sql_conn_t *conn,
                           const cachemw_call_t *call, void *baton);

/**
 * Read, waiting for nobody who writes.
 * @param wait µs for a connection
 * @return APR_TIMEUP; APR_NOTFOUND: `work` says so, or the child is ending;
 *         trouble
 */
apr_status_t mw_sql_consult(mw_sql_t *store, const cachemw_call_t *call,
                            apr_interval_time_t wait, mw_sql_work_fn *work,
                            void *baton);

/**
 * Write, in one transaction, perhaps that of another thread which was about to
 * commit: `work` is then done by that one, while this one waits. When the database is full, the oldest entries go
 * and it is tried again.
 * @param wait µs for a connection and for locks
 * @return APR_TIMEUP: others were writing all the time; APR_ENOSPC: there is
 *         not so much room, or the disk is full; trouble
 */
apr_status_t mw_sql_transact(mw_sql_t *store, const cachemw_call_t *call,
                             apr_interval_time_t wait, mw_sql_work_fn *work,
                             void *baton);

#endif
