/* SPDX-License-Identifier: Apache-2.0 */

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apr_file_io.h"
#include "apr_strings.h"

/* What a module refers to must be visible to it. */
#pragma GCC visibility push(default)
#include "httpd.h"
#include "http_config.h"
#include "http_log.h"
#include "http_protocol.h"
#include "http_request.h"
#include "ap_provider.h"
#include "mpm_common.h"

#include "conformance.h"
#include "loader.h"

/* --- httpd's symbols, as far as a provider may use them ------------------ */

#undef ap_get_server_module_loglevel
#undef ap_log_error_
#undef ap_log_perror_

AP_DECLARE(apr_status_t)
ap_register_provider(apr_pool_t *pool, const char *provider_group,
                     const char *provider_name, const char *provider_version,
                     const void *provider)
{
    (void)pool;
    if (strcmp(provider_group, CACHEMW_PROVIDER_GROUP) != 0) {
        return APR_SUCCESS;
    }
    if (strcmp(provider_version, CACHEMW_PROVIDER_VERSION) != 0) {
        fprintf(stderr,
                "provider \"%s\" is registered under version \"%s\" of the "
                "contract; this program knows \"%s\"\n",
                provider_name, provider_version, CACHEMW_PROVIDER_VERSION);
        return APR_EINVAL;
    }
    ct_provider_add(provider_name, provider);
    return APR_SUCCESS;
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

/* Of the objects that a symbol table exports, one that is a module record. */
static module *symbols_search(const image_t *image, const ElfW(Shdr) * table,
                              const ElfW(Shdr) * strings, void *handle)
{
    apr_uint64_t n = table->sh_size / sizeof(ElfW(Sym));
    const ElfW(Sym) *symbols =
        image_at(image, table->sh_offset, n, sizeof(ElfW(Sym)));
    apr_uint64_t i;

    if (symbols == NULL || strings->sh_offset > image->length) {
        return NULL;
    }
    for (i = 0; i < n; i++) {
        apr_uint64_t at = strings->sh_offset + symbols[i].st_name;

        if (symbols[i].st_shndx != SHN_UNDEF
            && ELF64_ST_TYPE(symbols[i].st_info) == STT_OBJECT
            && symbols[i].st_size >= sizeof(module) && at < image->length
            && is_record(handle, image->bytes + at)) {
            return dlsym(handle, image->bytes + at);
        }
    }
    return NULL;
}

static module *record_find(const image_t *image, void *handle)
{
    const ElfW(Ehdr) *head = image_at(image, 0, 1, sizeof(*head));
    const ElfW(Shdr) * sections;
    module *record = NULL;
    int i;

    if (head == NULL || memcmp(head->e_ident, ELFMAG, SELFMAG) != 0) {
        return NULL;
    }
    sections = image_at(image, head->e_shoff, head->e_shnum, sizeof(*sections));
    for (i = 0; sections != NULL && record == NULL && i < head->e_shnum; i++) {
        if (sections[i].sh_type == SHT_DYNSYM
            && sections[i].sh_link < head->e_shnum) {
            record = symbols_search(image, &sections[i],
                                    &sections[sections[i].sh_link], handle);
        }
    }
    return record;
}

const char *ct_load(const char *file, apr_pool_t *pool)
{
    image_t image = { NULL, 0 };
    const char *error = file_read(&image, file, pool);
    module *record;
    void *handle;

    if (error != NULL) {
        return error;
    }
    if (strchr(file, '/') == NULL) {
        file = apr_pstrcat(pool, "./", file, NULL);
    }
    handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        error = dlerror();
        return apr_pstrcat(
            pool, error != NULL ? error : file,
            error != NULL && strstr(error, "undefined symbol") != NULL
                ? " (of httpd's symbols a provider may use those only that "
                  "mod_cachemw.h names)"
                : "",
            NULL);
    }
    record = record_find(&image, handle);
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
