/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file look.h
 * @brief Providers for who is no process of the server that has a store.
 */
#ifndef MW_COMMON_LOOK_H
#define MW_COMMON_LOOK_H

/**
 * In this group a module may register, under the name of a provider of its own
 * and with the same table of options, one that is used instead of that to look
 * at what a server has, or had: it makes nothing, puts nothing right, and says
 * APR_EINCOMPLETE of what is damaged.
 */
#define MW_LOOK_GROUP "cachemw_look"

#endif
