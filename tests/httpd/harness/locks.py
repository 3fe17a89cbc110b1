# SPDX-License-Identifier: Apache-2.0
"""The locks of a memory store, seen from outside: who holds them now."""

import os
import re
import struct
from pathlib import Path

MAGIC = struct.pack("<Q", 0x6d656d6f72792d31)
SHARDS, AREAS = 28, 56          # where the geometry has their numbers
KIND = struct.pack("<i", 128 | 16)      # glibc: robust, between processes
TID = 0x3fffffff                # of the lock word


class Locks:
    """Those of the only memory store of a server"""

    def __init__(self, pid):
        self._file = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
        self._base = self._find(pid)
        head = self._read(self._base, 65536)
        shards, = struct.unpack_from("<I", head, SHARDS)
        areas, = struct.unpack_from("<I", head, AREAS)
        found = [at for at in range(0, len(head) - 40, 8)
                 if head[at + 16:at + 20] == KIND]
        # the first is the collection's, behind the areas' come the slots'
        self.shards = found[1:1 + shards]
        self.areas = found[1 + shards:1 + shards + areas]
        assert 1 <= shards <= 256 and 1 <= areas <= 32, (shards, areas)
        assert len(self.areas) == areas, found
        for one in (self.shards, self.areas):
            assert all(b - a == 128 for a, b in zip(one, one[1:])), found

    def close(self):
        os.close(self._file)

    def _read(self, at, size):
        return os.pread(self._file, size, at)

    def _find(self, pid):
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            m = re.match(r"([0-9a-f]+)-[0-9a-f]+ rw-s", line)
            at = self._read(int(m[1], 16), 8192).find(MAGIC) if m else -1
            if at >= 0:
                return int(m[1], 16) + at
        raise AssertionError("no segment of a memory store")

    def held(self, offsets, pid):
        """(how many of these locks threads of PID hold, how many of those are
        being mended after another death)"""
        words = [struct.unpack("<i4xi", self._read(self._base + at, 12))
                 for at in offsets]
        if not any(word & TID for word, _ in words):
            return 0, 0
        threads = {int(x) for x in os.listdir(f"/proc/{pid}/task")}
        mine = [(word & TID, owner) for word, owner in words
                if word & TID in threads]
        # who locks is the owner a moment later, if nobody died before
        return len(mine), len([1 for tid, owner in mine
                               if owner not in (0, tid)])
