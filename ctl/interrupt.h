/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file interrupt.h
 * @brief SIGINT, SIGTERM and SIGHUP, for what has processes and temporary files
 *        to clear away before it ends.
 */
#ifndef MW_INTERRUPT_H
#define MW_INTERRUPT_H

/** From now on they are noted. The second of a kind ends the process. */
void mw_interrupt_catch(void);

/** For a process that another one waits for, which gets them, too. */
void mw_interrupt_ignore(void);

/** For a process that has nothing to clear away: they end it. */
void mw_interrupt_obey(void);

/** The exit status that tells of the one that came: 128 and its number; 0: none
 *  came. What waits wakes up of it. */
int mw_interrupted(void);

#endif
