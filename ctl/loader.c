/* SPDX-License-Identifier: Apache-2.0 */

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apr_file_io.h"
#include "apr_strings.h"
#include "apr_tables.h"

/* What a module refers to must be visible to it. */
#pragma GCC visibility push(default)
#include "httpd.h"
#include "http_config.h"
#include "http_log.h"
#include "http_protocol.h"
#include "http_request.h"
#include "ap_provider.h"
#include "mpm_common.h"
#pragma GCC visibility pop

#include "ctl/loader.h"
#include "providers/common/look.h"
#include "providers/file/file.h"
#include "providers/file/look.h"

/* --- providers by name ---------------------------------------------------- */

#define PROVIDERS_MAX 200

typedef struct named_t {
    const char *name;
    const cachemw_provider_t *table; /* NULL: of another version */
    const char *version;
} named_t;

static named_t providers[PROVIDERS_MAX];
static int nproviders;

static apr_status_t provider_add(const char *name, const char *version,
                                 const cachemw_provider_t *table)
{
    named_t *named = &providers[nproviders];

    if (nproviders == PROVIDERS_MAX) {
        return APR_ENOSPC;
    }
    named->name = name;
    named->table = table;
    named->version = version;
    nproviders++;
    return APR_SUCCESS;
}

/* The latest one of a name that has a table, or that has none. */
static const named_t *provider_find(const char *name, int has_table)
{
    int i;

    for (i = nproviders - 1; i >= 0; i--) {
        if (strcmp(providers[i].name, name) == 0
            && (providers[i].table != NULL) == has_table) {
            return &providers[i];
        }
    }
    return NULL;
}

apr_status_t mw_loader_add(const char *name, const cachemw_provider_t *table)
{
    return provider_add(name, CACHEMW_PROVIDER_VERSION, table);
}

const cachemw_provider_t *mw_loader_find(const char *name)
{
    const named_t *named = provider_find(name, 1);

    return named != NULL ? named->table : NULL;
}

const char *mw_loader_other_version(const char *name)
{
    const named_t *named = provider_find(name, 0);

    return named != NULL ? named->version : NULL;
}

const char *mw_loader_names(apr_pool_t *pool)
{
    const char *names = "";
    int i;

    for (i = 0; i < nproviders; i++) {
        if (providers[i].table != NULL
            && provider_find(providers[i].name, 1) == &providers[i]) {
            names = apr_pstrcat(pool, names, *names ? " " : "",
                                providers[i].name, NULL);
        }
    }
    return names;
}

static const cachemw_provider_t *looks[PROVIDERS_MAX];
static int nlooks;

static apr_status_t look_add(const cachemw_provider_t *table)
{
    if (nlooks == PROVIDERS_MAX) {
        return APR_ENOSPC;
    }
    looks[nlooks++] = table;
    return APR_SUCCESS;
}

const cachemw_provider_t *mw_loader_look(const cachemw_provider_t *table)
{
    int i;

    if (table == &mw_file_provider) {
        return &mw_file_look_provider;
    }
    for (i = 0; i < nlooks; i++) {
        if (looks[i]->options == table->options) {
            return looks[i];
        }
    }
    return table;
}

/* --- httpd's symbols, as far as a provider may use them ------------------ */

#pragma GCC visibility push(default)
#undef ap_get_server_module_loglevel
#undef ap_log_error_
#undef ap_log_perror_

AP_DECLARE(apr_status_t)
ap_register_provider(apr_pool_t *pool, const char *provider_group,
                     const char *provider_name, const char *provider_version,
                     const void *provider)
{
    (void)pool;
    if (strcmp(provider_group, MW_LOOK_GROUP) == 0
        && strcmp(provider_version, CACHEMW_PROVIDER_VERSION) == 0) {
        return look_add(provider);
    }
    if (strcmp(provider_group, CACHEMW_PROVIDER_GROUP) != 0) {
        return APR_SUCCESS;
    }
    return provider_add(provider_name, provider_version,
                        strcmp(provider_version, CACHEMW_PROVIDER_VERSION) == 0
                            ? provider
                            : NULL);
}

static void log_line(const char *file, int line, int level, apr_status_t status,
                     const char *format, va_list args)
{
    char text[1000], reason[200];

    if ((level & APLOG_LEVELMASK) > APLOG_NOTICE) {
        return;
    }
    vsnprintf(text, sizeof(text), format, args);
    fprintf(stderr, "# %s:%d: %s%s%s\n", file != NULL ? file : "", line, text,
            status != 0 ? ": " : "",
            status != 0 ? apr_strerror(status, reason, sizeof(reason)) : "");
}

AP_DECLARE(void)
ap_log_error_(const char *file, int line, int module_index, int level,
              apr_status_t status, const server_rec *s, const char *fmt, ...)
{
    va_list args;

    (void)module_index;
    (void)s;
    va_start(args, fmt);
    log_line(file, line, level, status, fmt, args);
    va_end(args);
}

AP_DECLARE(void)
ap_log_perror_(const char *file, int line, int module_index, int level,
               apr_status_t status, apr_pool_t *p, const char *fmt, ...)
{
    va_list args;

    (void)module_index;
    (void)p;
    va_start(args, fmt);
    log_line(file, line, level, status, fmt, args);
    va_end(args);
}

/* The macros around ap_log_error() ask for it. */
AP_DECLARE(int) ap_get_server_module_loglevel(const server_rec *s, int index)
{
    (void)s;
    (void)index;
    return APLOG_NOTICE;
}

AP_DECLARE(void)
ap_log_assert(const char *szExp, const char *szFile, int nLine)
{
    fprintf(stderr, "%s:%d: assertion failed: %s\n", szFile, nLine, szExp);
    abort();
}

/* There is no server whose hooks could run. */
#define HOOK(name)                                                    \
    AP_DECLARE(void)                                                  \
    ap_hook_##name(ap_HOOK_##name##_t *pf, const char *const *aszPre, \
                   const char *const *aszSucc, int nOrder)            \
    {                                                                 \
        (void)pf;                                                     \
        (void)aszPre;                                                 \
        (void)aszSucc;                                                \
        (void)nOrder;                                                 \
    }

HOOK(pre_config)
HOOK(check_config)
HOOK(test_config)
HOOK(post_config)
HOOK(open_logs)
HOOK(child_init)
HOOK(child_stopping)
HOOK(drop_privileges)
HOOK(monitor)
HOOK(optional_fn_retrieve)
HOOK(handler)
HOOK(quick_handler)
HOOK(log_transaction)
#pragma GCC visibility pop

/* --- finding the module record ------------------------------------------- */

#define RECORD_SUFFIX "_module"

typedef struct image_t {
    const char *bytes;
    apr_size_t length;
} image_t;

/* A table of `n` things of this size at this offset, if it is inside. */
static const void *image_at(const image_t *image, apr_uint64_t offset,
                            apr_uint64_t n, apr_size_t size)
{
    if (offset > image->length || n > (image->length - offset) / size
        || offset % sizeof(apr_uint32_t) != 0) {
        return NULL;
    }
    return image->bytes + offset;
}

static const char *file_read(image_t *image, const char *file, apr_pool_t *pool)
{
    apr_file_t *f;
    apr_finfo_t info;
    char *bytes;
    char reason[200];
    apr_status_t rv;

    rv = apr_file_open(&f, file, APR_FOPEN_READ, APR_FPROT_OS_DEFAULT, pool);
    if (rv == APR_SUCCESS) {
        rv = apr_file_info_get(&info, APR_FINFO_SIZE, f);
        if (rv == APR_SUCCESS) {
            image->length = (apr_size_t)info.size;
            bytes = apr_palloc(pool, image->length + 1);
            bytes[image->length] = '\0';
            image->bytes = bytes;
            rv = apr_file_read_full(f, bytes, image->length, NULL);
        }
        apr_file_close(f);
    }
    return rv == APR_SUCCESS
               ? NULL
               : apr_pstrcat(pool, "cannot read ", file, ": ",
                             apr_strerror(rv, reason, sizeof(reason)), NULL);
}

static int is_record(void *handle, const char *name)
{
    apr_size_t n = strlen(name), suffix = strlen(RECORD_SUFFIX);
    const module *record;

    if (n <= suffix || strcmp(name + n - suffix, RECORD_SUFFIX) != 0) {
        return 0;
    }
    record = dlsym(handle, name);
    return record != NULL && record->magic == MODULE_MAGIC_COOKIE;
}

/* What is done with a symbol of a module: non-zero ends it. */
typedef int symbol_fn(void *baton, const ElfW(Sym) * symbol, const char *name);

static int symbols_each(const image_t *image, const ElfW(Shdr) * table,
                        const ElfW(Shdr) * strings, symbol_fn *each,
                        void *baton)
{
    apr_uint64_t n = table->sh_size / sizeof(ElfW(Sym));
    const ElfW(Sym) *symbols =
        image_at(image, table->sh_offset, n, sizeof(ElfW(Sym)));
    apr_uint64_t i;

    if (symbols == NULL || strings->sh_offset > image->length) {
        return 0;
    }
    for (i = 0; i < n; i++) {
        apr_uint64_t at = strings->sh_offset + symbols[i].st_name;

        if (at < image->length && each(baton, &symbols[i], image->bytes + at)) {
            return 1;
        }
    }
    return 0;
}

static const ElfW(Shdr) * image_sections(const image_t *image, int *n)
{
    const ElfW(Ehdr) *head = image_at(image, 0, 1, sizeof(*head));

    *n = 0;
    if (head == NULL || memcmp(head->e_ident, ELFMAG, SELFMAG) != 0
        || head->e_shentsize != sizeof(ElfW(Shdr))) {
        return NULL;
    }
    *n = head->e_shnum;
    return image_at(image, head->e_shoff, head->e_shnum, sizeof(ElfW(Shdr)));
}

/* The symbols that a module shows and asks for. */
static void image_symbols(const image_t *image, symbol_fn *each, void *baton)
{
    int n, i;
    const ElfW(Shdr) *sections = image_sections(image, &n);

    for (i = 0; sections != NULL && i < n; i++) {
        if (sections[i].sh_type == SHT_DYNSYM
            && sections[i].sh_link < (unsigned)n
            && symbols_each(image, &sections[i], &sections[sections[i].sh_link],
                            each, baton)) {
            return;
        }
    }
}

typedef struct search_t {
    void *handle;
    module *record;
} search_t;

static int record_is_it(void *baton, const ElfW(Sym) * symbol, const char *name)
{
    search_t *search = baton;

    if (symbol->st_shndx != SHN_UNDEF
        && ELF64_ST_TYPE(symbol->st_info) == STT_OBJECT
        && symbol->st_size >= sizeof(module)
        && is_record(search->handle, name)) {
        search->record = dlsym(search->handle, name);
    }
    return search->record != NULL;
}

/* --- symbols that nobody has ---------------------------------------------- */

typedef struct missing_t {
    apr_array_header_t *libraries; /* handles of those that it needs */
    const char *names;
    apr_pool_t *pool;
} missing_t;

static int missing_add(void *baton, const ElfW(Sym) * symbol, const char *name)
{
    missing_t *missing = baton;
    int i;

    if (symbol->st_shndx != SHN_UNDEF || *name == '\0'
        || ELF64_ST_BIND(symbol->st_info) == STB_WEAK
        || dlsym(RTLD_DEFAULT, name) != NULL) {
        return 0;
    }
    for (i = 0; i < missing->libraries->nelts; i++) {
        if (dlsym(APR_ARRAY_IDX(missing->libraries, i, void *), name) != NULL) {
            return 0;
        }
    }
    missing->names = apr_pstrcat(missing->pool, missing->names,
                                 *missing->names ? ", " : "", name, NULL);
    return 0;
}

/* A library that is not there is no library with these symbols either. */
static void library_open(const char *name, apr_array_header_t *libraries)
{
    void *handle = dlopen(name, RTLD_LAZY | RTLD_LOCAL);

    if (handle != NULL) {
        APR_ARRAY_PUSH(libraries, void *) = handle;
    }
}

static void libraries_open(const image_t *image, apr_array_header_t *libraries)
{
    int n, i;
    const ElfW(Shdr) *sections = image_sections(image, &n);

    for (i = 0; sections != NULL && i < n; i++) {
        apr_uint64_t entries = sections[i].sh_size / sizeof(ElfW(Dyn)), at, j;
        const ElfW(Dyn) * dynamic;

        if (sections[i].sh_type != SHT_DYNAMIC
            || sections[i].sh_link >= (unsigned)n) {
            continue;
        }
        dynamic =
            image_at(image, sections[i].sh_offset, entries, sizeof(ElfW(Dyn)));
        for (j = 0; dynamic != NULL && j < entries; j++) {
            at =
                sections[sections[i].sh_link].sh_offset + dynamic[j].d_un.d_val;
            if (dynamic[j].d_tag == DT_NEEDED && at < image->length) {
                library_open(image->bytes + at, libraries);
            }
        }
    }
}

/* What dlopen() says names the first of them only. */
static const char *load_failed(const char *file, const image_t *image,
                               apr_pool_t *pool)
{
    const char *error = dlerror();
    missing_t missing = { apr_array_make(pool, 8, sizeof(void *)), "", pool };

    if (error == NULL || strstr(error, "undefined symbol") == NULL) {
        return apr_psprintf(pool, "cannot load %s: %s", file,
                            error != NULL ? error : "no reason given");
    }
    libraries_open(image, missing.libraries);
    image_symbols(image, missing_add, &missing);
    return apr_psprintf(pool,
                        "cannot load %s: it asks for symbols that are not "
                        "offered: %s (of httpd's a provider may use those only "
                        "that mod_cachemw.h names)",
                        file, *missing.names ? missing.names : error);
}

const char *mw_loader_load(const char *file, apr_pool_t *pool)
{
    image_t image = { NULL, 0 };
    const char *error = file_read(&image, file, pool);
    search_t search = { NULL, NULL };
    const module *record;

    if (error != NULL) {
        return error;
    }
    if (strchr(file, '/') == NULL) {
        file = apr_pstrcat(pool, "./", file, NULL);
    }
    search.handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (search.handle == NULL) {
        return load_failed(file, &image, pool);
    }
    image_symbols(&image, record_is_it, &search);
    record = search.record;
    if (record == NULL) {
        return apr_psprintf(pool,
                            "%s exports no module record, an httpd "
                            "`module` whose name ends in " RECORD_SUFFIX,
                            file);
    }
    if (record->register_hooks == NULL) {
        return apr_psprintf(pool, "the module in %s registers nothing", file);
    }
    record->register_hooks(pool);
    return NULL;
}
