"""Names in SQL, as patterns and as the catalogue has them; and lists of things between commas."""

from __future__ import annotations

import re

from ragschema.sql.tokens import tokenize

NAME = r'(?:"(?:[^"]|"")+"|[\w$]+)'
PATH = rf"(?:{NAME}\.)*{NAME}"
PATHS = rf"{PATH}(?:\s*,\s*{PATH})*"


def unquote(path: str) -> str:
    """Return the name at the end of a path, as the catalogue has it."""
    name: str = re.findall(NAME, path)[-1]
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()


def split_list(text: str) -> list[str]:
    """Split at the commas that stand in no parentheses and in no string."""
    parts, depth = [""], 0
    for token in tokenize(text):
        depth += (token.text in ("(", "[")) - (token.text in (")", "]"))
        if token.text == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += token.text
    return [part.strip() for part in parts]


def in_parentheses(text: str) -> tuple[str, str]:
    """Split a text that starts with a parenthesis into what is in it, and what follows."""
    depth = 0
    for token in tokenize(text):
        depth += (token.text == "(") - (token.text == ")")
        if depth == 0:
            return text[1 : token.start], text[token.start + 1 :].strip()
    return text[1:], ""
