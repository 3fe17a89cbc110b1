/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "apr_strings.h"
#include "apr_time.h"

#include "ctl.h"

static int progress_is_shown;

static void progress_clear(void)
{
    if (progress_is_shown) {
        fputs("\r\033[K", stderr);
        progress_is_shown = 0;
    }
}

int mw_ctl_has_progress(void)
{
    return isatty(STDERR_FILENO);
}

void mw_ctl_progress(const char *format, ...)
{
    va_list args;

    if (!mw_ctl_has_progress()) {
        return;
    }
    progress_clear();
    if (*format) {
        va_start(args, format);
        vfprintf(stderr, format, args);
        va_end(args);
        progress_is_shown = 1;
    }
    fflush(stderr);
}

int mw_ctl_error(int status, const char *format, ...)
{
    va_list args;

    progress_clear();
    fflush(stdout);
    fputs("cachemwctl: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return status;
}

int mw_ctl_output_broken(void)
{
    static int why;

    if (ferror(stdout) && !why) {
        why = errno ? errno : EIO;
    }
    return why;
}

void mw_ctl_log(void *baton, cachemw_level_e level, apr_status_t rv,
                const char *text)
{
    const mw_ctl_t *ctl = baton;
    char reason[200];

    if (level > CACHEMW_LOG_WARNING && !ctl->verbose) {
        return;
    }
    mw_ctl_error(0, "%s%s%s", text, rv != APR_SUCCESS ? ": " : "",
                 rv != APR_SUCCESS ? apr_strerror(rv, reason, sizeof(reason))
                                   : "");
}

const char *mw_ctl_color(const mw_ctl_t *ctl, FILE *to, mw_ctl_color_e color)
{
    static const char *const codes[] = {
        [MW_CTL_PLAIN] = "\033[0m",
        [MW_CTL_BOLD] = "\033[1m",
        [MW_CTL_RED] = "\033[31m",
        [MW_CTL_GREEN] = "\033[32m",
    };
    const char *without = getenv("NO_COLOR");
    const char *terminal = getenv("TERM");

    if (ctl->no_color || (without && *without) || !isatty(fileno(to))
        || (terminal && !strcmp(terminal, "dumb"))) {
        return "";
    }
    return codes[color];
}

/* Bytes of the UTF-8 character at the beginning; 0: there is none. */
static apr_size_t utf8_length(const unsigned char *p, apr_size_t length)
{
    static const unsigned char second_least[] = { 0, 0, 0x80, 0xa0, 0x90 };
    apr_size_t n = *p >= 0xf0 && *p <= 0xf4   ? 4
                   : *p >= 0xe0 && *p <= 0xef ? 3
                   : *p >= 0xc2 && *p <= 0xdf ? 2
                                              : 0;
    apr_size_t i;

    if (n == 0 || n > length
        || ((*p == 0xe0 || *p == 0xf0) && p[1] < second_least[n])
        || (*p == 0xed && p[1] > 0x9f) || (*p == 0xf4 && p[1] > 0x8f)) {
        return 0;
    }
    for (i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return n;
}

/* The code of a character that a terminal or an editor does not show but obeys:
 * the second controls, and those that turn the direction of writing. 0: none */
static unsigned int utf8_control(const unsigned char *p, apr_size_t n)
{
    unsigned int code = 0;

    if (n == 2) {
        code = (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
    }
    else if (n == 3) {
        code = (p[0] & 0xfu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
    }
    return (code >= 0x80 && code <= 0x9f) || (code >= 0x202a && code <= 0x202e)
                   || (code >= 0x2066 && code <= 0x2069)
               ? code
               : 0;
}

void mw_ctl_json(FILE *to, const char *text, apr_size_t length)
{
    const unsigned char *p = (const unsigned char *)text;
    const unsigned char *end = p + length;

    fputc('"', to);
    while (p < end) {
        apr_size_t n = *p >= 0x80 ? utf8_length(p, end - p) : 0;

        if (n > 0) {
            const unsigned int control = utf8_control(p, n);

            if (control) {
                fprintf(to, "\\u%04x", control);
            }
            else {
                fwrite(p, 1, n, to);
            }
            p += n;
            continue;
        }
        if (*p == '"' || *p == '\\') {
            fprintf(to, "\\%c", *p);
        }
        else if (*p < 0x20 || *p >= 0x7f) {
            fprintf(to, "\\u%04x", *p);
        }
        else {
            fputc(*p, to);
        }
        p++;
    }
    fputc('"', to);
}

void mw_ctl_text(FILE *to, const char *text, apr_size_t length)
{
    apr_size_t i;

    for (i = 0; i < length; i++) {
        const unsigned char c = (unsigned char)text[i];

        if (c < 0x20 || c >= 0x7f) {
            fprintf(to, "%%%02X", c);
        }
        else {
            fputc(c, to);
        }
    }
}

const char *mw_ctl_time(apr_time_t time, apr_pool_t *pool)
{
    char text[40];
    apr_time_exp_t parts;
    apr_size_t length;

    if (!time || apr_time_exp_lt(&parts, time) != APR_SUCCESS
        || apr_strftime(text, &length, sizeof(text), "%Y-%m-%d %H:%M:%S",
                        &parts)
               != APR_SUCCESS) {
        return "-";
    }
    return apr_pstrmemdup(pool, text, length);
}

const char *mw_ctl_size(apr_int64_t bytes, apr_pool_t *pool)
{
    static const char units[] = "KMGTPE";
    double value = (double)bytes;
    int i = -1;

    if (bytes < 0) {
        return "-";
    }
    if (bytes < 1024) {
        return apr_psprintf(pool, "%" APR_INT64_T_FMT, bytes);
    }
    do {
        value /= 1024;
        i++;
    } while (value >= 1023.95 && units[i + 1]);
    return apr_psprintf(pool, value < 99.95 ? "%.1f%c" : "%.0f%c", value,
                        units[i]);
}
