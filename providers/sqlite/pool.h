/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file pool.h
 * @brief The connections of a child.
 */
#ifndef MW_SQLITE_POOL_H
#define MW_SQLITE_POOL_H

#include "sqlite.h"

/**
 * child_init: open a connection, so that no request has to wait for it; what
 * cannot be had now is tried again when it is needed, like further ones.
 */
void mw_sql_pool_begin(mw_sql_t *store, apr_pool_t *pchild);

/**
 * A connection for this thread alone, to the file that the path names.
 * @param until monotonic µs: wait so long for it, and with it for locks
 * @param is_writer what he stores or removes must not get lost: the path is
 *        looked at now. Readers look once a second
 * @param conn to be given back by mw_sql_pool_give()
 * @return APR_TIMEUP; APR_NOTFOUND: the child is ending; trouble, which is
 *         logged
 */
apr_status_t mw_sql_pool_take(mw_sql_t *store, apr_int64_t until, int is_writer,
                              mw_sql_conn_t **conn);

/** Give it back: it is closed when it is bad, and the database set aside when
 *  that is damaged. */
void mw_sql_pool_give(mw_sql_t *store, mw_sql_conn_t *conn);

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

#endif
