/* SPDX-License-Identifier: Apache-2.0 */

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "apr_strings.h"

#include "machine.h"

#define MACHINE_PATH 4096

/** Note the limit that a file has, if it is one ("max" is none). */
static void limit_read(mw_machine_t *machine, const char *path)
{
    FILE *file = fopen(path, "re");
    unsigned long long limit;

    if (!file) {
        return;
    }
    if (fscanf(file, "%llu", &limit) == 1 && limit < machine->bytes) {
        machine->bytes = limit;
        machine->what = "its control group allows";
    }
    fclose(file);
}

/**
 * A group and all around it. In a container the mount may show its own group
 * only, as the root: then the directories below are not there.
 */
static void group_read(mw_machine_t *machine, const char *mount, char *group,
                       const char *name)
{
    char path[2 * MACHINE_PATH];
    char *end;

    do {
        apr_snprintf(path, sizeof(path), "%s%s/%s", mount, group, name);
        limit_read(machine, path);
        end = strrchr(group, '/');
        if (end) {
            *end = '\0';
        }
    } while (end);
}

/** Whether a list with commas has the word "memory". */
static int list_has_memory(char *list)
{
    char *state;
    char *word = apr_strtok(list, ",", &state);

    while (word && strcmp(word, "memory")) {
        word = apr_strtok(NULL, ",", &state);
    }
    return word != NULL;
}

/** A line of /proc/self/cgroup: number, controllers (none: version 2), group */
static void line_read(mw_machine_t *machine, const char *root, char *line)
{
    char *controllers = strchr(line, ':');
    char *group = controllers ? strchr(controllers + 1, ':') : NULL;
    char mount[MACHINE_PATH];

    if (!group) {
        return;
    }
    *group++ = '\0';
    controllers++;
    group[strcspn(group, "\n")] = '\0';
    if (!*controllers) {
        apr_snprintf(mount, sizeof(mount), "%s/sys/fs/cgroup", root);
        group_read(machine, mount, group, "memory.max");
    }
    else if (list_has_memory(controllers)) {
        apr_snprintf(mount, sizeof(mount), "%s/sys/fs/cgroup/memory", root);
        group_read(machine, mount, group, "memory.limit_in_bytes");
    }
}

void mw_machine_memory(mw_machine_t *machine, const char *root)
{
    long pages = sysconf(_SC_PHYS_PAGES);
    char line[MACHINE_PATH];
    FILE *file;

    machine->bytes = ~APR_UINT64_C(0);
    machine->what = "the machine has";
    if (pages > 0) {
        machine->bytes =
            (apr_uint64_t)pages * (apr_uint64_t)sysconf(_SC_PAGESIZE);
    }
    apr_snprintf(line, sizeof(line), "%s/proc/self/cgroup", root);
    file = fopen(line, "re");
    if (!file) {
        return;
    }
    while (fgets(line, sizeof(line), file)) {
        line_read(machine, root, line);
    }
    fclose(file);
}

void mw_machine_size(char text[24], apr_uint64_t bytes)
{
    const char *unit = "KMG";

    bytes >>= 10;
    while (unit[1] && (bytes >= 10240 || (bytes && !(bytes & 1023)))) {
        bytes >>= 10;
        unit++;
    }
    apr_snprintf(text, 24, "%" APR_UINT64_T_FMT "%c", bytes, *unit);
}
