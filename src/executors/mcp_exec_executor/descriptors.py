"""Descriptors of our own, and standard input."""

from . import own_builtins as __builtins__  # noqa: F401

from fcntl import F_DUPFD_CLOEXEC, fcntl
from os import MFD_CLOEXEC, close, dup2, memfd_create, sysconf

# They stand far above those that code opens, or closes in loops such as closerange(3, 256).
OWN_FDS = max(3, min(sysconf("SC_OPEN_MAX"), 1024) - 32)


def lift(fd):
    """Copies fd to our own descriptors."""
    try:
        return fcntl(fd, F_DUPFD_CLOEXEC, OWN_FDS)
    except OSError:
        return fcntl(fd, F_DUPFD_CLOEXEC, 3)  # those up to the limit are taken


def take(fd):
    """Moves fd to our own descriptors."""
    own = lift(fd)
    close(fd)
    return own


def connect_stdin(text):
    """Makes descriptor 0 a file with that text."""
    fd = memfd_create("stdin", MFD_CLOEXEC)
    with open(fd, "wb") as file:
        file.write(text.encode("utf-8", "replace"))
        file.seek(0)
        dup2(fd, 0)
