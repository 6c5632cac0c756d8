"""What the makers of manual pages share."""

import re


def literal(text):
    """Text that scdoc(5) takes for nothing but text."""
    return re.sub(r"([\\_*#<>`|~\[\]])", r"\\\1", text)
