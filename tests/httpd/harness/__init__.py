# SPDX-License-Identifier: Apache-2.0
"""A private httpd, a scripted origin and clients that notice a cut."""

from .client import Connection, Response, h2
from .origin import Gate, Origin, Reply
from .server import Httpd, configtest
from .settings import settings

__all__ = ["Connection", "Gate", "Httpd", "Origin", "Reply", "Response",
           "configtest", "h2", "settings"]
