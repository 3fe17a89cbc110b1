# SPDX-License-Identifier: Apache-2.0
"""A private httpd, a scripted origin and clients that notice a cut."""

from .client import Connection, Response
from .herd import Herd, meet
from .http2 import Connection2
from .origin import Gate, Origin, Reply
from .server import Httpd, configtest
from .settings import settings
from .tcpproxy import TcpProxy

__all__ = ["Connection", "Connection2", "Gate", "Herd", "Httpd", "Origin",
           "Reply", "Response", "TcpProxy", "configtest", "meet", "settings"]
