"""Words of commands that are printed to be pasted into a shell."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable


def quoted(word: object) -> str:
    """`word` as a word of a command; if standard output cannot show it, as `$'...'` with bytes as octal numbers.

    bash, zsh and ksh read those.
    """
    text = str(word)
    if text.isprintable() and _has_all(getattr(sys.stdout, "encoding", None) or "utf-8", text):
        return shlex.quote(text)
    try:
        given = os.fsencode(text)
    except UnicodeEncodeError:
        # Text of a file, which no name of a file here can be.
        given = text.encode(errors="surrogatepass")
    shown = (chr(byte) if 0x20 <= byte < 0x7F and byte not in b"'\\" else f"\\{byte:03o}" for byte in given)
    return f"$'{''.join(shown)}'"


def joined(words: Iterable[object]) -> str:
    """The command of `words`."""
    return " ".join(map(quoted, words))


def _has_all(encoding: str, text: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
