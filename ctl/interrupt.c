/* SPDX-License-Identifier: Apache-2.0 */

#include <signal.h>
#include <string.h>

#include "interrupt.h"

static const int signals[] = { SIGINT, SIGTERM, SIGHUP };

#define SIGNALS (sizeof(signals) / sizeof(*signals))

static volatile sig_atomic_t noted;

static void note(int signal)
{
    noted = signal;
}

static void signals_set(void (*handler)(int), int flags)
{
    struct sigaction action, before;
    size_t i;

    memset(&action, 0, sizeof(action));
    action.sa_handler = handler;
    action.sa_flags = flags;
    for (i = 0; i < SIGNALS; i++) {
        /* as under nohup: it stays so */
        if (sigaction(signals[i], NULL, &before) == 0
            && before.sa_handler != SIG_IGN) {
            sigaction(signals[i], &action, NULL);
        }
    }
}

void mw_interrupt_catch(void)
{
    signals_set(note, (int)SA_RESETHAND);
}

void mw_interrupt_ignore(void)
{
    signals_set(SIG_IGN, 0);
}

void mw_interrupt_obey(void)
{
    signals_set(SIG_DFL, 0);
}

int mw_interrupted(void)
{
    return noted ? 128 + noted : 0;
}
