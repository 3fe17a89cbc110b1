# SPDX-License-Identifier: Apache-2.0
"""`cachemwctl check` and what all commands have in common: a stranger learns
what is wrong with a provider, a module or a command line."""

import json
import os
import re
import shlex
import subprocess
import time

import pytest

from conftest import MODULES, PROGRAM, ctl
from harness import settings

BROKEN = settings.build / "tests/conformance/selftest/.libs/mod_broken.so"
STRANGER = settings.build / "tests/conformance/selftest/.libs/mod_stranger.so"
CONTRACT = settings.build / "tests/contract/.libs/mod_cachemw_contract.so"

COMMANDS = ["check", "bench", "get", "ls", "stat", "rm", "clear", "sweep",
            "verify"]


def check(*words):
    return ctl("check", *words)


# ---- TAP ---------------------------------------------------------------------

def test_a_right_provider_passes_in_tap():
    done = check("--test", "test_set*", "memory", "size=64M")
    assert done.status == 0, done
    plan = int(re.fullmatch(r"1\.\.(\d+)", done.lines[0])[1])
    results = [x for x in done.lines if re.match(r"(not )?ok ", x)]
    assert len(results) == plan > 5
    for number, line in enumerate(results, 1):
        assert re.match(rf"ok {number} - test_set\w+( # SKIP .+)?$", line)
    assert "\033" not in done.out


# One for each class of fault, the test that must notice, and what it says.
FAULTS = [
    ("forgets_expiry", "*expire*", "exactly at its expires"),
    ("leaks_memory", "*memory*", "KB of memory behind"),
    ("leaks_memory_in_open", "*close_leave_no_memory*", "KB of memory behind"),
    ("leaks_descriptors", "*descriptor*", "descriptors open"),
    ("sets_in_two_steps", "*atomic*",
     "is not the one that was stored"),
    ("crosses_keys_at_nul", "*key*", "differ behind a NUL byte only"),
    ("amends_the_wrong_id", "*older_id*",
     "the 304 of an old response must not amend a new one"),
    ("keeps_a_store_per_child", "*processes_share*",
     "stored by another child"),
    ("crashes", "test_set_and_get", "signal 6"),
    ("races", "*thread*", "thread "),
    ("forgets_a_body_with_its_entry", "*outlive_replacement*",
     "within CACHEMW_GRACE"),
]
if os.geteuid() == 0:
    FAULTS.append(("forgets_whom_its_directory_is_for", "*another_user*",
                   "as nobody, of whom post_config was told"))


@pytest.mark.parametrize("name,tests,saying", FAULTS)
def test_a_broken_provider_is_caught_and_told_what_is_wrong(name, tests,
                                                            saying):
    for _ in range(3):      # races show by chance
        done = check("--load", BROKEN, "--test", tests, name, "size=4M")
        if done.status:
            break
    assert done.status == 1, done
    wrong = [done.lines[n:n + 2] for n, x in enumerate(done.lines)
             if x.startswith("not ok ")]
    assert wrong and all(x[1].startswith("# ") and len(x[1]) > 15
                         for x in wrong), done
    assert any(saying in x[1] for x in wrong), done


HANGING = """
#include "httpd.h"
#include "http_config.h"
#include "ap_provider.h"
#include <stdio.h>
#include <unistd.h>
#include "mod_cachemw.h"
static void hang(void) { puts("ok 1 - all is well"); for (;;) pause(); }
static apr_status_t my_open(const cachemw_services_t *services,
                            const cachemw_value_t *values, apr_pool_t *pconf,
                            void **store, const char **error)
{ *store = (void *)services; @open@; return APR_SUCCESS; }
static apr_status_t my_get(void *store, const cachemw_call_t *call,
                           const cachemw_key_t *key, cachemw_entry_t *entry)
{ return APR_NOTFOUND; }
static apr_status_t my_set(void *store, const cachemw_call_t *call,
                           const cachemw_key_t *key,
                           const cachemw_entry_t *entry)
{ return APR_ENOSPC; }
static apr_status_t my_remove(void *store, const cachemw_call_t *call,
                              const cachemw_key_t *key, const cachemw_id_t *id)
{ return APR_SUCCESS; }
static apr_status_t my_post_config(void *store, apr_pool_t *pconf,
                                   apr_uid_t uid, apr_gid_t gid)
{ @post_config@; return APR_SUCCESS; }
static apr_status_t my_child_init(void *store, apr_pool_t *pchild)
{ @child_init@; return APR_SUCCESS; }
static apr_status_t my_keys(void *store, const cachemw_call_t *call,
                            const char *pattern, cachemw_keys_fn *each,
                            void *baton)
{ @keys@; return APR_SUCCESS; }
static const cachemw_provider_t provider = {
    .size = sizeof(cachemw_provider_t), .open = my_open, .get = my_get,
    .set = my_set, .remove = my_remove, .post_config = my_post_config,
    .child_init = my_child_init, .keys = my_keys };
static void hooks(apr_pool_t *p)
{
    ap_register_provider(p, CACHEMW_PROVIDER_GROUP, "hanging",
                         CACHEMW_PROVIDER_VERSION, &provider);
}
AP_DECLARE_MODULE(hanging) = { STANDARD20_MODULE_STUFF,
                               .register_hooks = hooks };
"""


@pytest.mark.parametrize("slot", ["open", "post_config", "child_init", "keys"])
def test_who_hangs_before_the_first_test_is_told_so(strangers, slot):
    """… and what it prints is no line of TAP."""
    module = strangers("mod_hanging", re.sub(
        "@(.*?)@", lambda x: "hang()" if x[1] == slot else "(void)0", HANGING))
    done = check("--load", module, "--seconds", "2", "--test",
                 "test_delete_nonexistent", "hanging")
    if slot == "keys":
        assert done.status == 0, done
        assert done.lines[:2] == ["1..1", "ok 1 - test_delete_nonexistent"]
    else:
        assert (done.status, done.out) == (4, ""), done
        assert f"hangs: no result within 2 seconds, in {slot} of hanging" in \
            done.err


def test_list_names_the_tests():
    done = ctl("check", "--list")
    assert done.status == 0 and "test_set_and_get" in done.lines
    assert len(done.lines) > 80
    assert ctl("check", "--list", "--test", "nothing*").status == 2


def test_a_store_with_entries_is_not_checked_by_mistake(tmp_path):
    """The suite clears what it finds."""
    words = ["sqlite", f"db_path={tmp_path}/mine.db"]
    done = ctl("bench", "--keys", "5", "--seconds", "1", "--warmup", "0s",
               "--ops", "get", *words)
    assert done.status == 0, done
    for command in ("check", "bench"):
        done = ctl(command, *words)
        assert done.status == 2 and "has entries" in done.err, done
    assert len(ctl("ls", *words).lines) == 5
    done = check("--force", "--test", "test_set_and_get", *words)
    assert done.status == 0, done


def test_what_cannot_be_looked_into_is_not_checked_by_mistake(tmp_path, site):
    """A server has it, or perhaps does."""
    site.fill({"/a.css": b"a"})
    for command in ("check", "bench"):
        done = site.ctl(command)
        assert done.status == 2, done
        assert "has entries" in done.err or "root's alone" in done.err, done
    if site.kind != "redis" and settings.run_user:
        done = site.ctl("check", options=["--force"])
        assert done.status == 2 and "root's alone" in done.err, done
    assert site.get("/a.css").cache == "HIT"
    damaged = tmp_path / "other.db"
    damaged.write_bytes(b"important")
    for words in (["redis", "url=redis://127.0.0.1:9", "timeout=1s"],
                  ["http", "base_url=http://127.0.0.1:9", "timeout=1s"],
                  ["sqlite", f"db_path={damaged}"],
                  ["--store", "far", "sqlite", f"db_path={damaged}",
                   "--store", "near", "file", "cache_dir={tmp}/f",
                   "multitier", "l1=near", "l2=far"]):
        for command in ("check", "bench"):
            done = ctl(command, *words)
            assert done.status == 2 and "cannot be told" in done.err, done
    assert damaged.read_bytes() == b"important"


# ---- modules -----------------------------------------------------------------

def test_a_strangers_module_is_loaded():
    done = check("--load", STRANGER, "--test", "test_set_and_get", "stranger")
    assert done.status == 0, done


def test_our_modules_are_found_by_themselves():
    done = check("--test", "test_set_and_get", "sqlite", "db_path={tmp}/x.db")
    assert done.status == 0, done
    done = check("--modules", "/nonexistent", "sqlite")
    assert done.status == 2
    assert "/nonexistent/mod_cachemw_sqlite.so" in done.err
    assert "file memory multitier" in done.err


def test_all_symbols_that_nobody_offers_are_named(strangers):
    module = strangers("mod_wants", """
        #include "httpd.h"
        #include "http_config.h"
        extern int ap_nobody_has_this(void), ap_nor_that(void);
        extern int perhaps_there(void) __attribute__((weak));
        static void hooks(apr_pool_t *p)
        {
            (void)p;
            ap_nobody_has_this();
            ap_nor_that();
            if (perhaps_there) perhaps_there();
        }
        AP_DECLARE_MODULE(wants) = { STANDARD20_MODULE_STUFF,
                                     .register_hooks = hooks };
        """)
    done = check("--load", module, "x")
    assert done.status == 2
    assert "ap_nobody_has_this" in done.err and "ap_nor_that" in done.err
    assert "perhaps_there" not in done.err and "apr_" not in done.err
    assert "mod_cachemw.h names" in done.err


def test_the_symbols_that_the_header_lists_are_offered(strangers):
    """… each in a form in which a provider may use it; and hooks."""
    module = strangers("mod_all", """
        #include "httpd.h"
        #include "http_config.h"
        #include "http_log.h"
        #include "http_protocol.h"
        #include "mpm_common.h"
        #include "ap_provider.h"
        static int ready(apr_pool_t *p, apr_pool_t *l, apr_pool_t *t,
                         server_rec *s)
        {
            ap_log_error(APLOG_MARK, APLOG_INFO, 0, s, "ready");
            return OK;
        }
        static void child(apr_pool_t *p, server_rec *s) { }
        static void hooks(apr_pool_t *p)
        {
            ap_log_perror(APLOG_MARK, APLOG_ERR, 0, p, "number %d", 7);
            ap_log_error(APLOG_MARK, APLOG_NOTICE, 0, NULL, "of %s", "these");
            ap_hook_post_config(ready, NULL, NULL, APR_HOOK_MIDDLE);
            ap_hook_child_init(child, NULL, NULL, APR_HOOK_MIDDLE);
            ap_register_provider(p, "other", "x", "0", "");
        }
        AP_DECLARE_MODULE(all) = { STANDARD20_MODULE_STUFF,
                                   .register_hooks = hooks };
        """)
    done = check("--load", module, "--test", "test_set_and_get", "memory")
    assert done.status == 0, done
    assert "number 7" in done.err and "of these" in done.err, done


def test_what_is_no_module_is_refused(tmp_path, strangers):
    text = tmp_path / "text.so"
    text.write_text("text")
    plain = strangers("plain", "int plain;")
    for file, saying in ((text, "text.so"), (plain, "no module record"),
                         (tmp_path / "none.so", "cannot read")):
        done = check("--load", file, "x")
        assert done.status == 2 and saying in done.err, done


# ---- versions of the contract ------------------------------------------------

# Its store has room for a few small entries: what a test with more, or larger
# ones, or about slots that it has not, would ask.
SMALL = ["test_set_and_get", "test_get_nonexistent_key", "test_delete",
         "test_expiration", "test_delete_nonexistent"]


@pytest.mark.parametrize("name", ["contract", "contract_smaller",
                                  "contract_larger"])
@pytest.mark.parametrize("how", [[], ["--core"]])
def test_a_provider_of_the_frozen_version_1_loads_and_passes(name, how):
    tests = [y for x in SMALL for y in ("--test", x)]
    done = check("--load", CONTRACT, *how, *tests, name)
    assert done.status == 0, done
    assert sum(x.startswith("ok ") for x in done.lines) == len(SMALL), done
    assert "# SKIP" not in done.out, done


def test_another_version_is_refused_and_named():
    done = check("--load", CONTRACT, "contract_2")
    assert done.status in (2, 4)
    assert "is for version 2" in done.err and "this is version 1" in done.err


@pytest.mark.parametrize("name,saying", [
    ("contract_tiny", "is its member size set?"),
    ("contract_flagged", "flags that this mod_cachemw does not know")])
def test_a_table_that_cannot_be_is_refused(name, saying):
    done = check("--load", CONTRACT, name)
    assert done.status == 4 and saying in done.err, done


# ---- the command line --------------------------------------------------------

@pytest.mark.parametrize("words,saying", [
    ([], "which command?"),
    (["explode"], 'no command "explode"'),
    (["check"], "which store?"),
    (["check", "memory", "memory"], "one provider is tested at a time"),
    (["check", "memory", "--nothing"], "no option --nothing"),
    (["check", "memory", "--core=yes"], "--core takes no value"),
    (["check", "memory", "--test"], "--test wants GLOB"),
    (["check", "memory", "--repeat", "0"], "repeat"),
    (["check", "nosuch"], 'no provider "nosuch"'),
    (["check", "../../etc/x"], "no name of a provider"),
    (["ls", "memory", "--core"], "no option --core"),
    (["ls", "file", "a", "b"], "ls takes one pattern"),
    (["get", "file", "not-a-url"], "http://"),
    (["get", "file"], "http://"),
    (["rm", "file"], "--match GLOB"),
    (["rm", "file", "--match", "*", "http://x/"], "--match GLOB"),
    (["bench", "memory", "--ops", "fly"], "set, get and delete"),
    (["bench", "memory", "--size", "1x"], "size"),
    (["bench", "memory", "other"], "--vs"),
    (["ls", "--store", "x"], "--store x: which provider?"),
    (["ls", "file", "--long", "cache_dir=/x"],
     "cache_dir=/x does not follow its provider"),
    (["bench", "memory", "--vs", "file", "--json", "cache_dir=/x"],
     "cache_dir=/x does not follow its provider"),
    (["ls", "--load", "/nonexistent.so", "file"], "cannot read"),
])
def test_a_wrong_command_line_says_what_would_be_right(words, saying):
    done = subprocess.run([PROGRAM, *words], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 2, done
    assert saying in done.stderr and "--help says more" in done.stderr \
        or saying in done.stderr
    assert not done.stdout


@pytest.mark.parametrize("words,saying", [
    (["memory", "size=lots"], "size"),
    (["memory", "nothing=1"], "nothing"),
    (["multitier", "l1=a", "l2=b"], "a")])
def test_an_option_of_a_store_is_refused_as_in_the_directives(words, saying):
    done = check(*words)
    assert done.status == 4 and saying in done.err, done


def said(*words):
    return subprocess.run([PROGRAM, *words], capture_output=True, text=True,
                          check=True, timeout=60).stdout


def test_help_has_short_forms():
    assert said("-h") == said("help") == said("--help")
    assert "usage: cachemwctl ls" in said("ls", "--help")
    assert said("ls", "-h") == said("help", "ls") == said("ls", "--help")


def test_what_looks_like_an_option_is_no_provider():
    done = ctl("ls", "-l", "memory")
    assert done.status == 2 and "there is no option -l here" in done.err


def test_help_has_examples_for_each_command():
    done = ctl("--help")
    assert done.status == 0 and "Exit status" in done.out
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", done.out, re.M)
        more = ctl(command, "--help")
        assert more.status == 0 and not more.err
        assert f"  cachemwctl {command} " in more.out, command
        assert "--load FILE.so" in more.out
        assert max(map(len, more.lines)) <= 100, command
    assert ctl("--version").out.startswith("cachemwctl (mod_cachemw) ")


# ---- what is said of the command line, in three places -----------------------

# of those for all commands, those that are not for check and bench
LOOKING = {"timeout", "user"}


def help_of(command):
    """{option: (what it takes, what it does)}"""
    found = {}
    for line in said(command, "--help").splitlines():
        option = re.match(r"  --([\w-]+)(?: (\S.*?))?(?:  +(\S.*))?$", line)
        if option:
            name = option[1]
            found[name] = [option[2] or "", option[3] or ""]
        elif found and re.match(r" {26}\S", line):
            found[name][1] = line.strip()
        elif found:
            break
    return found


def manual_of():
    """{section: {option: (what it takes, what it does)}}, without troff"""
    text = (settings.source / "ctl/cachemwctl.1").read_text()
    text = re.sub(r"\\f[RPBI]", "", text).replace("\\-", "-")
    sections, part = {}, {}
    for block in re.split(r"^\.TP\n", text, flags=re.M):
        block, *heads = re.split(r"^(?=\.S[SH] )", block, flags=re.M)
        option = re.match(r"\.BI? --([\w-]+)(?: \"(.*)\")?\n(.*)", block, re.S)
        if option:
            part[option[1]] = [(option[2] or "").strip(), option[3]]
        for head in heads:
            part = sections.setdefault(
                head.split("\n")[0][4:].strip().strip('"'), {})
    return sections


def completed(*words):
    script = f"""
        source {settings.source}/ctl/cachemwctl.bash
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _cachemwctl && echo "${{COMPREPLY[*]}}"
    """
    done = subprocess.run(["bash", "-c", script, "bash", "cachemwctl", *words],
                          capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_help_manual_and_completion_have_the_same_options():
    manual = manual_of()
    common = manual.pop("COMMON OPTIONS")
    assert [x for x in manual if x.islower()] == COMMANDS
    assert set(completed("")) == {*COMMANDS, "--help", "--version"}
    for command in COMMANDS:
        told = help_of(command)
        mine = {x: y for x, y in common.items()
                if x not in LOOKING or command not in ("check", "bench")}
        written = {**manual[command], **mine}
        assert set(told) == set(written), command
        assert {f"--{x}" for x in told} == set(completed(command, "--")), \
            command
        for option, (value, does) in told.items():
            assert value == written[option][0], (command, option)
            default = re.search(r"\(default: ([\w,]+)\)", does)
            if default and "/" not in does:
                assert default[1] in written[option][1].replace(
                    '" and "', ",").replace('", "', ",") or \
                    option in ("ops", "user"), (command, option)
    for option in LOOKING:
        assert "Not of\n.BR check \" and \" bench" in common[option][1]


def test_help_and_manual_have_the_same_exit_statuses():
    text = (settings.source / "ctl/cachemwctl.1").read_text()
    part = text.split(".SH EXIT STATUS\n")[1].split(".SH")[0]
    written = re.findall(r"^\.B (\d+)$", part, re.M)
    told = said("--help").split("Exit status: ")[1]
    assert written == re.findall(r"\b(\d+) [a-z]", told) == \
        ["0", "1", "2", "3", "4", "130"]


def test_examples_are_command_lines(tmp_path):
    """Of all that is told as an example each word is understood."""
    texts = [said(x, "--help") for x in COMMANDS] + [said("--help")]
    texts.append((settings.source / "ctl/cachemwctl.1").read_text()
                 .split(".SH EXAMPLES\n.nf\n")[1].split(".fi")[0]
                 .replace("\\-", "-"))
    lines = [x for text in texts for x in
             re.findall(r"^ *(cachemwctl [a-z].*)$",
                        text.replace("\\\n", " "), re.M)]
    lines += [x.strip() for x in re.findall(
        r"^    (cachemwctl .*)$",
        (settings.source / "docs/operations.md").read_text(), re.M)]
    assert len(lines) > 25
    for line in lines:
        words = shlex.split(re.split(r"[|>]", line)[0])[1:]
        words = [re.sub(r"^\./mod_.*\.so$", str(STRANGER), x) for x in words]
        done = subprocess.run([PROGRAM, words[0], "--help", *words[1:]],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and not done.stderr, (line, done)


def test_force_is_told_of_where_a_store_cannot_list():
    for command in ("check", "bench"):
        assert "or cannot tell" in help_of(command)["force"][1]
    assert "as of http: --force says" in said("check", "--help")
    text = (settings.source / "ctl/cachemwctl.1").read_text()
    assert "cannot list what it has, as every store of\n.BR http" in text


def test_completion_completes():
    assert completed("ve") == ["verify"]
    assert completed("ls", "--lo") == ["--long", "--load"]
    assert completed("bench", "--v") == ["--vs", "--verbose"]
    assert completed("ls", "mem") == ["memory"]
    assert "root" in completed("ls", "--user", "ro")


def test_colours_are_for_terminals_only():
    script = f"{PROGRAM} check --test test_set_and_get memory size=64M"
    def seen(**env):
        done = subprocess.run(
            ["script", "-qec", script, "/dev/null"], capture_output=True,
            env={"PATH": "/usr/bin:/bin", "TERM": "xterm", **env}, timeout=60)
        return b"\033[32m" in done.stdout
    assert seen()
    assert not seen(NO_COLOR="1")
    assert not seen(TERM="dumb")


# ---- bench -------------------------------------------------------------------

BENCH = ["--seconds", "1", "--warmup", "100ms", "--keys", "500"]


def test_bench_puts_stores_side_by_side():
    done = ctl("bench", *BENCH, "--size", "1K", "--size", "70K", "--ops",
               "set,get", "memory", "size=96M", "--vs", "file",
               "cache_dir={tmp}/c")
    assert done.status == 0 and "\033" not in done.out + done.err, done
    rows = [x.split() for x in done.lines[1:]]
    assert [(x[0], x[1], x[2]) for x in rows] == [
        (store, op, size) for size in ("1.0K", "70.0K")
        for store in ("memory", "file") for op in ("set", "get")]
    first = {}
    for row in rows:
        rate, *times = map(float, row[3:9])
        assert times == sorted(times)
        first.setdefault((row[1], row[2]), rate)
        if rate:
            assert times[0] > 0 and row[9] == "100.0%"
            assert float(row[10]) == pytest.approx(
                rate / first[row[1], row[2]], abs=0.01, rel=0.01)
    assert any(float(x[3]) for x in rows)


def test_bench_as_json_with_processes_and_zipf():
    done = ctl("bench", *BENCH, "--json", "--zipf", "1", "--processes", "2",
               "--threads", "2", "--store", "near", "memory", "--store",
               "far", "file", "cache_dir={tmp}/far", "multitier", "l1=near",
               "l2=far")
    assert done.status == 0, done
    told = json.loads(done.out)
    assert (told["processes"], told["threads"], told["zipf"]) == (2, 2, 1)
    assert [x["operation"] for x in told["rows"]] == ["set", "get", "delete"]
    assert any(x["operations"] for x in told["rows"])
    for row in told["rows"]:
        assert row["done"] + row["failed"] <= row["operations"]
        assert 0 <= row["p50_us"] <= row["p90_us"] <= row["p99_us"] \
            <= row["p99_9_us"] <= row["max_us"]
    get = told["rows"][1]
    assert get["done"] == get["operations"]


def test_bench_shows_progress_on_a_terminal_only():
    words = ["bench", *BENCH, "--ops", "get", "memory", "size=64M"]
    done = subprocess.run(
        ["script", "-qec", " ".join([str(PROGRAM), *words]), "/dev/null"],
        capture_output=True, timeout=60,
        env={"PATH": "/usr/bin:/bin", "TERM": "xterm"})
    assert re.search(rb"memory: get, 1.0K: \d+/s", done.stdout), done
    assert "/s" not in ctl(*words).err


def test_bench_warms_up_before_it_counts():
    begin = time.monotonic()
    done = ctl("bench", "--seconds", "1", "--warmup", "2s", "--keys", "500",
               "--ops", "get", "--json", "memory", "size=64M")
    assert done.status == 0 and time.monotonic() - begin >= 3, done


def test_bench_of_a_store_that_takes_no_such_body_says_so():
    done = ctl("bench", *BENCH, "--size", "1M", "memory", "size=64M",
               "max_object_size=64K")
    assert done.status == 4 and "takes no bodies of 1.0M" in done.err, done


def test_bench_of_a_provider_that_dies_says_so():
    done = ctl("bench", *BENCH, "--ops", "get", "--load", BROKEN, "crashes",
               "size=4M")
    assert done.status == 4 and "died by signal 6" in done.err, done
