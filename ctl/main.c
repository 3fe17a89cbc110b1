/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "apr_general.h"
#include "apr_strings.h"

#include "ctl.h"
#include "loader.h"
#include "providers/file/file.h"
#include "providers/memory/memory.h"
#include "providers/multitier/multitier.h"

typedef struct command_t {
    const char *name;
    unsigned int bit;
    int (*run)(mw_ctl_t *ctl);
    const char *words; /* behind the store */
    const char *does;
    const char *more; /* what --help says, with examples */
} command_t;

static const command_t commands[] = {
    { "check", MW_CTL_CHECK, mw_ctl_check, "",
      "run the conformance suite on a provider",
      "Prints TAP, a line for each test, and of one that failed what is wrong\n"
      "with the provider. {tmp} in a value is a fresh directory for each test.\n"
      "A store that has entries is refused, and so is one that cannot list what\n"
      "it has, as of http: --force says that they may be lost.\n"
      "\n"
      "  cachemwctl check memory size=64M\n"
      "  cachemwctl check --load ./mod_my.so my dir={tmp}/my\n"
      "  cachemwctl check --core --test '*_expir*' file cache_dir={tmp}/c\n"
      "  cachemwctl check --store near memory --store far file "
      "cache_dir={tmp}/f \\\n"
      "      multitier l1=near l2=far\n" },
    { "bench", MW_CTL_BENCH, mw_ctl_bench, "", "measure stores side by side",
      "Calls them as httpd's children do, through mod_cachemw's core. ops/s\n"
      "counts the time within calls. {tmp} in a value is a fresh directory.\n"
      "--force is needed as for check.\n"
      "\n"
      "  cachemwctl bench memory size=256M\n"
      "  cachemwctl bench --size 1K --size 100K --ops set,get \\\n"
      "      memory size=256M --vs file cache_dir={tmp}/c\n"
      "  cachemwctl bench --zipf 1 --keys 100000 --processes 2 --threads 4 \\\n"
      "      --json redis url=redis://127.0.0.1\n" },
    { "get", MW_CTL_GET, mw_ctl_get, " URL", "print a stored body",
      "  cachemwctl get file cache_dir=/var/cache/apache2/mod_cachemw/file \\\n"
      "      http://www.example.org/ >page.html\n"
      "  cachemwctl get --include --header 'Accept-Encoding: gzip' \\\n"
      "      redis url=redis://127.0.0.1 http://www.example.org/style.css\n" },
    { "ls", MW_CTL_LS, mw_ctl_ls, " [GLOB]", "list entries",
      "GLOB is matched with the whole URL as it is shown.\n"
      "\n"
      "  cachemwctl ls sqlite db_path=/var/cache/apache2/cache.db\n"
      "  cachemwctl ls --long file cache_dir=/var/cache/pages '*.css'\n"
      "  cachemwctl ls --json redis url=redis://127.0.0.1 | jq .url\n" },
    { "stat", MW_CTL_STAT, mw_ctl_stat, " [URL]",
      "show an entry, or figures of the store",
      "  cachemwctl stat file cache_dir=/var/cache/pages\n"
      "  cachemwctl stat file cache_dir=/var/cache/pages "
      "http://www.example.org/\n" },
    { "rm", MW_CTL_RM, mw_ctl_rm, " [URL]...", "remove entries",
      "A URL goes with all its variants. A page that is being fetched at this\n"
      "moment may be stored afterwards. What a server holds in a tier in\n"
      "memory is out of reach.\n"
      "\n"
      "  cachemwctl rm file cache_dir=/var/cache/pages "
      "http://www.example.org/\n"
      "  cachemwctl rm --match 'http://www.example.org/news/*' \\\n"
      "      sqlite db_path=/var/cache/apache2/cache.db\n" },
    { "clear", MW_CTL_CLEAR, mw_ctl_clear, "", "remove all entries",
      "Asks before, unless --yes is given.\n"
      "\n"
      "  cachemwctl clear --yes file cache_dir=/var/cache/pages\n" },
    { "sweep", MW_CTL_SWEEP, mw_ctl_sweep, "", "remove expired entries",
      "A running server does that by itself.\n"
      "\n"
      "  cachemwctl sweep sqlite db_path=/var/cache/apache2/cache.db\n" },
    { "verify", MW_CTL_VERIFY, mw_ctl_verify, "",
      "read everything, and report what is damaged",
      "Changes nothing without --remove.\n"
      "\n"
      "  cachemwctl verify file cache_dir=/var/cache/pages\n" },
};

#define COMMANDS (sizeof(commands) / sizeof(*commands))

static const char statuses[] =
    "Exit status: 0 done; 1 a test failed, nothing was found or something is\n"
    "damaged; 2 the command line is wrong; 3 this kind of store cannot do that;\n"
    "4 the store cannot be opened, read or reached; 130 interrupted.\n";

static void usage_print(void)
{
    apr_size_t i;

    puts("usage: cachemwctl COMMAND [OPTION]... PROVIDER [option=value]... "
         "[WORD]...\n\n"
         "Checks, measures and looks into stores of mod_cachemw, without a\n"
         "server. A store is written as in the directive CachemwStore.\n");
    for (i = 0; i < COMMANDS; i++) {
        printf("  %-8s%s\n", commands[i].name, commands[i].does);
    }
    puts("\ncachemwctl COMMAND --help says more, --version which one this is.\n"
         "-- ends the options, also those of the store.\n\n"
         "  cachemwctl ls file cache_dir=/var/cache/pages '*/news/*'\n"
         "  cachemwctl check --load ./mod_my.so my dir={tmp}/my\n"
         "  cachemwctl bench memory size=256M --vs file cache_dir={tmp}/c\n");
    fputs(statuses, stdout);
}

static void command_print(const command_t *command)
{
    printf("usage: cachemwctl %s [OPTION]... PROVIDER [option=value]...%s\n\n"
           "%c%s.\n\n",
           command->name, command->words, command->does[0] - 'a' + 'A',
           command->does + 1);
    mw_ctl_print_options(command->bit, stdout);
    printf("\n%s\n%s", command->more, statuses);
}

static const command_t *command_find(const char *name)
{
    apr_size_t i;

    for (i = 0; i < COMMANDS; i++) {
        if (!strcmp(commands[i].name, name)) {
            return &commands[i];
        }
    }
    return NULL;
}

static int command_run(const command_t *command, mw_ctl_t *ctl, int nwords,
                       const char *const *words)
{
    const char *error = mw_ctl_parse(ctl, command->bit, nwords, words);

    if (!error && ctl->help) {
        command_print(command);
        return MW_CTL_OK;
    }
    if (!error && ctl->subjects->nelts == 0 && !ctl->list) {
        error = "which store? PROVIDER [option=value]... is missing";
    }
    if (!error) {
        error = mw_ctl_load(ctl);
    }
    if (error) {
        return mw_ctl_error(MW_CTL_USAGE, "%s\ncachemwctl %s --help says more",
                            error, command->name);
    }
    return command->run(ctl);
}

static int first_word(const char *word, mw_ctl_t *ctl, int nwords,
                      const char *const *words)
{
    const command_t *command;

    if (!strcmp(word, "help") && nwords > 0 && command_find(words[0])) {
        command_print(command_find(words[0]));
        return MW_CTL_OK;
    }
    if (!strcmp(word, "--help") || !strcmp(word, "-h")
        || !strcmp(word, "help")) {
        usage_print();
        return MW_CTL_OK;
    }
    if (!strcmp(word, "--version")) {
        puts("cachemwctl (mod_cachemw) " MW_VERSION);
        return MW_CTL_OK;
    }
    command = command_find(word);
    if (!command) {
        return mw_ctl_error(MW_CTL_USAGE,
                            "there is no command \"%s\"\ncachemwctl --help "
                            "says more",
                            word);
    }
    return command_run(command, ctl, nwords, words);
}

int main(int argc, const char *const *argv, const char *const *env)
{
    mw_ctl_t ctl = { .pool = NULL };
    int status, why;

    if (apr_app_initialize(&argc, &argv, &env) != APR_SUCCESS) {
        return MW_CTL_TROUBLE;
    }
    apr_pool_create(&ctl.pool, NULL);
    /* as in httpd: the connections of stores may end */
    signal(SIGPIPE, SIG_IGN);
    mw_loader_add("file", &mw_file_provider);
    mw_loader_add("memory", &mw_memory_provider);
    mw_loader_add("multitier", &mw_multitier_provider);
    if (argc < 2) {
        return mw_ctl_error(MW_CTL_USAGE,
                            "which command?\ncachemwctl --help says more");
    }
    status = first_word(argv[1], &ctl, argc - 2, argv + 2);
    fflush(stdout);
    why = mw_ctl_output_broken();
    if (why) {
        /* who reads it may have had enough of it */
        return why == EPIPE
                   ? MW_CTL_TROUBLE
                   : mw_ctl_error(MW_CTL_TROUBLE, "cannot write the output: %s",
                                  strerror(why));
    }
    return status;
}
