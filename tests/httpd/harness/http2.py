# SPDX-License-Identifier: Apache-2.0
"""A small HTTP/2 client (RFC 9113, 7541) with prior knowledge.

It tells a stream that was ended from one that was reset or lost, and waits for
that end, which curl does not do once Content-Length bytes have come."""

import socket
import struct

from .client import TIMEOUT, Cut, Response, _raw, _Reader, pairs

DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW, CONT = 0, 1, 3, 4, 6, 7, \
    8, 9
END_STREAM, END_HEADERS, PADDED, PRIORITY = 1, 4, 8, 32
ACK = 1

STATIC = """:authority|:method GET|:method POST|:path /|:path /index.html
:scheme http|:scheme https|:status 200|:status 204|:status 206|:status 304
:status 400|:status 404|:status 500|accept-charset|accept-encoding gzip, deflate
accept-language|accept-ranges|accept|access-control-allow-origin|age|allow
authorization|cache-control|content-disposition|content-encoding
content-language|content-length|content-location|content-range|content-type
cookie|date|etag|expect|expires|from|host|if-match|if-modified-since
if-none-match|if-range|if-unmodified-since|last-modified|link|location
max-forwards|proxy-authenticate|proxy-authorization|range|referer|refresh
retry-after|server|set-cookie|strict-transport-security|transfer-encoding
user-agent|vary|via|www-authenticate"""
STATIC = [(n, v) for n, _, v in
          (x.partition(" ") for x in STATIC.replace("\n", "|").split("|"))]

# The code is canonical: the symbols of each length, in order, define it.  Only
# what can stand in a header of ours is here.
SYMBOLS = {5: "012aceiost", 6: " %-./3456789=A_bdfghlmnpru",
           7: ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz", 8: "&*,;XZ", 10: '!"()?',
           11: "'+|", 12: "#>", 13: "\0$@[]~", 14: "^}", 15: "<`{"}


def _codes():
    table, code, before = {}, 0, 5
    for length, symbols in SYMBOLS.items():
        code <<= length - before
        before = length
        for symbol in symbols:
            table[length, code] = symbol
            code += 1
    return table


CODES = _codes()


def _unhuff(data):
    out, code, length = [], 0, 0
    for byte in data:
        for bit in range(7, -1, -1):
            code, length = code << 1 | byte >> bit & 1, length + 1
            symbol = CODES.get((length, code))
            if symbol is not None:
                out.append(symbol)
                code = length = 0
    assert length < 8, "a byte outside the small Huffman table"
    return "".join(out)


class _Block:
    """Decodes one header block; the dynamic table is switched off."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self, bits):
        mask = (1 << bits) - 1
        value = self.data[self.at] & mask
        self.at += 1
        shift = 0
        while value >= mask or shift:
            byte = self.data[self.at]
            self.at += 1
            value += (byte & 127) << shift
            shift += 7
            if not byte & 128:
                break
        return value

    def string(self):
        huff = self.data[self.at] & 128
        size = self.number(7)
        raw = self.data[self.at:self.at + size]
        self.at += size
        return _unhuff(raw) if huff else raw.decode("latin-1")

    def fields(self):
        found = []
        while self.at < len(self.data):
            first = self.data[self.at]
            if first & 128:
                found.append(STATIC[self.number(7) - 1])
            elif first >> 5 == 1:
                self.number(5)
            else:
                index = self.number(6 if first & 64 else 4)
                name = STATIC[index - 1][0] if index else self.string()
                found.append((name, self.string()))
        return found


def _literal(name, value):
    """one header, never indexed, not Huffman coded"""
    out = b"\0"
    for text in (_raw(name).lower(), _raw(value)):
        size = len(text)
        if size < 127:
            out += bytes([size])
        else:
            out += b"\x7f"
            size -= 127
            while size > 127:
                out += bytes([size & 127 | 128])
                size >>= 7
            out += bytes([size])
        out += text
    return out


class Connection2:
    """WINDOW: how many body bytes the server may send unasked; grant() more"""

    def __init__(self, addr, host, timeout=TIMEOUT, window=(1 << 31) - 1):
        self.host, self.next, self.window = host, 1, window
        self.sock = socket.create_connection(addr, timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = _Reader(self.sock)
        self.streams, self.lost = {}, None
        settings = struct.pack(">HIHIHI", 1, 0, 2, 0, 4, window)
        self.sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
                          + self._frame(SETTINGS, 0, 0, settings)
                          + self._frame(WINDOW, 0, 0,
                                        struct.pack(">I", (1 << 31) - 65536)))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    @staticmethod
    def _frame(kind, flags, stream, data):
        return (len(data).to_bytes(3, "big") + bytes([kind, flags])
                + stream.to_bytes(4, "big") + data)

    def send(self, method, target, headers=(), body=None):
        """Begin a request, answer its stream's number."""
        stream, self.next = self.next, self.next + 2
        block = b"".join(_literal(n, v) for n, v in [
            (":method", method), (":scheme", "http"),
            (":authority", self.host), (":path", target)] + pairs(headers))
        assert len(block) < 16384
        self.streams[stream] = res = Response(framing="h2", complete=False)
        res.ended = False
        flags = END_HEADERS | (0 if body is not None else END_STREAM)
        data = self._frame(HEADERS, flags, stream, block)
        if body is not None:
            assert len(body) < 16384
            data += self._frame(DATA, END_STREAM, stream, body)
        self.sock.sendall(data)
        return stream

    def grant(self, stream, more):
        self.sock.sendall(self._frame(WINDOW, 0, stream,
                                      struct.pack(">I", more)))

    def reset(self, stream):
        """Cancel one stream, as a browser does when its user moves on."""
        self.sock.sendall(self._frame(RST, 0, stream, struct.pack(">I", 8)))

    def _read(self):
        head, data = bytearray(), bytearray()
        self.reader.exactly(9, head)
        size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        stream = int.from_bytes(head[5:9], "big") & 0x7fffffff
        self.reader.exactly(size, data)
        return kind, flags, stream, bytes(data)

    def _strip(self, flags, data):
        if flags & PADDED:
            data = data[1:len(data) - data[0]]
        return data[5:] if flags & PRIORITY else data

    def step(self):
        """Take one frame; a lost connection ends all streams."""
        try:
            kind, flags, stream, data = self._read()
        except Cut as e:
            self.lost = str(e)
            for res in self.streams.values():
                self._end(res, self.lost)
            return
        res = self.streams.get(stream)
        if kind == SETTINGS and not flags & ACK:
            self.sock.sendall(self._frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self.sock.sendall(self._frame(PING, ACK, 0, data))
        elif kind == GOAWAY:
            code = struct.unpack(">I", data[4:8])[0]
            if code:
                self.lost = f"GOAWAY {code} {data[8:]!r}"
        elif res is None:
            pass
        elif kind == RST:
            self._end(res, f"stream reset, code {int.from_bytes(data, 'big')}")
        elif kind == DATA:
            res.body += self._strip(flags, data)
            if flags & END_STREAM:
                self._end(res)
        elif kind == HEADERS:
            data = self._strip(flags, data)
            while not flags & END_HEADERS:
                kind, more, _, rest = self._read()
                assert kind == CONT
                data, flags = data + rest, flags | more
            self._head(res, _Block(data).fields())
            if flags & END_STREAM:
                self._end(res)

    @staticmethod
    def _head(res, fields):
        status = int(dict(fields).get(":status", 0))
        fields = [x for x in fields if x[0] != ":status"]
        if not status:
            res.trailers = fields
        elif status < 200:
            res.interim.append((status, fields))
        else:
            res.status, res.headers = status, fields

    @staticmethod
    def _end(res, why=None):
        if res.ended:
            return
        res.ended, res.complete, res.why = True, why is None, why or ""
        length = res.get("content-length")
        if res.complete and length and res.body and \
                len(res.body) != int(length):
            res.complete = False
            res.why = f"{len(res.body)} bytes of {length}"

    def head(self, stream):
        res = self.streams[stream]
        while not res.status and not res.ended:
            self.step()
        return res

    def response(self, stream):
        res = self.streams[stream]
        while not res.ended:
            self.step()
        return res

    def ask(self, method, target, headers=(), body=None):
        return self.response(self.send(method, target, headers, body))

    def get(self, target, headers=()):
        return self.ask("GET", target, headers)

    def close(self):
        self.sock.close()
