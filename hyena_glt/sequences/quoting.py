"""How bytes of a file are shown in messages: one line, no control bytes, never long."""

from __future__ import annotations

LIMIT = 40


def quoted(text: bytes | str, limit: int = LIMIT) -> str:
    """Show a piece of input inside quotes: as `shown`."""
    return f"'{shown(text, limit)}'"


def shown(text: bytes | str, limit: int = LIMIT) -> str:
    """Show a piece of input as one printable line; what goes beyond `limit` characters becomes `...`.

    Example:
        >>> shown(b"chr1\\x00\\xff")
        'chr1\\\\x00\\\\xff'
    """
    head = text[: 4 * limit]
    decoded = head.decode("utf-8", "backslashreplace") if isinstance(head, bytes) else head
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in decoded)
    if len(escaped) > limit or len(text) > len(head):
        return escaped[: limit - 3] + "..."
    return escaped
