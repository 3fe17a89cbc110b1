# SPDX-License-Identifier: Apache-2.0
"""Entries as clients of a cache service send them, made without the module's
code: see docs/http-api.md and core/entry.c."""

import base64
import hashlib
import json
import struct
import time


def _crc_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82f63b78 if n & 1 else 0)
        table.append(n)
    return table


_TABLE = _crc_table()


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 255]
    return crc ^ 0xffffffff


def head(fields=(("Content-Type", "text/plain"),), status=200, now=None,
         content_length=None):
    """the head of a response, with a checksum"""
    now = int((time.time() if now is None else now) * 1e6)
    fields = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in fields]
    names = b"".join(n + b"\0" for n, _ in fields)
    values = b"".join(v + b"\0" for _, v in fields)
    length = -1 if content_length is None else content_length
    payload = struct.pack("<6I", status, 0, len(fields), len(names), 0, 0)
    payload += struct.pack("<11q", now, now + 3600 * 10**6, now, now, -1, -1,
                           -1, -1, 0, now, length)
    at = 12 + len(payload) + 8 * len(fields)
    where = b""
    name_at, value_at = at, at + len(names)
    for name, value in fields:
        where += struct.pack("<2I", name_at, value_at)
        name_at += len(name) + 1
        value_at += len(value) + 1
    payload += where + names + values
    whole = b"CMWH" + bytes([3, 1, 1, 0])
    whole += struct.pack("<I", 12 + len(payload) + 4) + payload
    return whole + struct.pack("<I", crc32c(whole))


def b64(data):
    return base64.b64encode(data).decode()


def name_of(key):
    """{key} in the URL"""
    return hashlib.sha256(key).hexdigest()


def value(key, body=b"hello", id=b"0123456789abcdef", expires=None, **more):
    """VALUE as a dictionary; HEAD and others may be given"""
    expires = int((time.time() + 60) * 1e6) if expires is None else expires
    bytes_of_head = more.pop("head", None)
    if bytes_of_head is None:
        bytes_of_head = head()
    crc = crc32c(id + struct.pack("<qII", expires, len(key),
                                  len(bytes_of_head))
                 + key + bytes_of_head + body)
    made = {"format": 1, "key": b64(key), "id": id.hex(),
            "expires": str(expires), "head": b64(bytes_of_head),
            "body": b64(body), "crc32c": f"{crc:08x}"}
    made.update(more)
    return made


def envelope(what, timeout=60):
    return json.dumps({"value": what, "timeout": timeout}).encode()
