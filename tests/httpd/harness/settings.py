# SPDX-License-Identifier: Apache-2.0
"""Where httpd, its modules and ours are; what the environment asks for."""

import os
import pwd
import re
import shutil
import subprocess
from functools import cached_property
from pathlib import Path


def _apxs(what):
    apxs = os.environ.get("CACHEMW_APXS") or shutil.which("apxs") \
        or shutil.which("apxs2")
    if not apxs:
        return ""
    done = subprocess.run([apxs, "-q", what], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


class Settings:
    """Read once; every value can be overridden by the environment."""

    source = Path(__file__).resolve().parents[3]

    @cached_property
    def build(self):
        return Path(os.environ.get("CACHEMW_BUILD", self.source)).resolve()

    @cached_property
    def httpd(self):
        names = [_apxs("progname"), "apache2", "httpd"]
        dirs = [_apxs("SBINDIR"), "/usr/sbin", "/usr/local/sbin"]
        given = os.environ.get("CACHEMW_HTTPD")
        if given:
            return given
        for where in dirs:
            for name in names:
                if name and where and os.access(f"{where}/{name}", os.X_OK):
                    return f"{where}/{name}"
        for name in names:
            found = name and shutil.which(name)
            if found:
                return found
        raise RuntimeError("no httpd: install Debian's package apache2")

    @cached_property
    def moddir(self):
        return Path(_apxs("LIBEXECDIR") or "/usr/lib/apache2/modules")

    @cached_property
    def includedir(self):
        return Path(_apxs("INCLUDEDIR") or "/usr/include/apache2")

    @cached_property
    def static_modules(self):
        done = subprocess.run([self.httpd, "-l"], capture_output=True,
                              text=True, check=True)
        return set(re.findall(r"^\s+(?:mod_)?(\w+)\.c$", done.stdout, re.M))

    @cached_property
    def mpm(self):
        return os.environ.get("CACHEMW_TEST_MPM", "event")

    @cached_property
    def provider(self):
        """mod_cache's provider under test; others only to try the harness"""
        return os.environ.get("CACHEMW_TEST_PROVIDER", "cachemw")

    @cached_property
    def store(self):
        return os.environ.get("CACHEMW_TEST_STORE", "memory size=64M")

    def store_with(self, options):
        """with OPTIONS, in the place of its own of the same names"""
        names = {x.split("=")[0] for x in options.split()}
        return " ".join([x for x in self.store.split()
                         if x.split("=")[0] not in names] + [options])

    def store_named(self, name):
        """one more of the same: two stores cannot have one path"""
        return re.sub(r"(_dir|_path)=(\S+)", rf"\1=\2-{name}", self.store)

    @cached_property
    def large_store(self):
        """room for bodies of 16 MB and more"""
        return os.environ.get("CACHEMW_TEST_STORE_LARGE",
                              "memory size=256M max_object_size=48M"
                              if self.store.split()[0] == "memory"
                              else self.store + " max_object_size=48M")

    @cached_property
    def prelude(self):
        """lines that the store's options refer to: other stores"""
        return os.environ.get("CACHEMW_TEST_PRELUDE", "")

    @cached_property
    def more_modules(self):
        """modules of providers, loaded behind ours: cachemw_NAME …"""
        return os.environ.get("CACHEMW_TEST_MODULES", "").split()

    @cached_property
    def module(self):
        return self.dso("cachemw")

    def dso(self, name):
        """the file of a module of ours"""
        short = name[len("cachemw_"):]
        places = [self.build / ".libs", self.build / "providers" / short
                  / ".libs", self.build / "tests" / "providers" / short
                  / ".libs", self.build / "tests" / short / ".libs"]
        for place in places:
            if (place / f"mod_{name}.so").exists():
                return place / f"mod_{name}.so"
        raise RuntimeError(f"mod_{name}.so is not below {self.build}: "
                           "set CACHEMW_BUILD")

    @cached_property
    def run_user(self):
        """(user, uid, gid) that httpd's children become, None when not root"""
        if os.geteuid() != 0:
            return None
        for name in ("www-data", "apache", "nobody"):
            try:
                found = pwd.getpwnam(name)
                return found.pw_name, found.pw_uid, found.pw_gid
            except KeyError:
                continue
        return None


settings = Settings()
