"""Secrets in texts that are not ours: passwords are taken out where they stand as such, and nowhere else.

Replacing a password by its text wherever it occurs would tell what it is: ``***ort 5432`` for ``p``.
"""

from __future__ import annotations

import re

_MASK = "***"

_PATTERNS = (
    # postgresql://user:password@host: to the last @ before a space or a quote
    re.compile(r"(?P<before>\b[a-z][a-z0-9+.-]*://[^\s/:@'\"]*:)(?P<secret>[^\s'\"]*)(?=@)", re.I),
    # password=..., sslpassword='...', &password=...; libpq doubles no quote but escapes it
    re.compile(
        r"(?P<before>\b(?:ssl)?password\s*=\s*|\b(?:scram_(?:client|server)_key|oauth_client_secret)\s*=\s*)"
        r"(?P<secret>'(?:[^'\\]|\\.|'')*'?|\"[^\"]*\"?|[^\s&'\",;)]+)",
        re.I,
    ),
    # SQL: PASSWORD 'literal', in CREATE ROLE and in the options of a foreign server
    re.compile(
        r"(?P<before>\bpassword\s+)(?P<secret>[eE]?'(?:[^'\\]|\\.|'')*'?|\$(?P<tag>\w*)\$.*?(?:\$(?P=tag)\$|$))",
        re.I | re.S,
    ),
)


def without_secrets(text: str) -> str:
    """Return a text with ``***`` for the passwords of URLs, of ``password=`` and of SQL's ``PASSWORD '...'``."""
    for pattern in _PATTERNS:
        text = pattern.sub(lambda match: f"{match['before']}{_MASK}", text)
    return text
