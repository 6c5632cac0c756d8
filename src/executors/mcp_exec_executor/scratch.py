"""A temporary folder of one's own: what code leaves where TMPDIR says is gone with the call."""

from . import own_builtins as __builtins__  # noqa: F401

import os
from os import (O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW, O_RDONLY, chmod, close, getpid, lstat, mkdir, open as open_fd,
                posix_spawn, rmdir, scandir, unlink, waitpid)
from stat import S_ISDIR


class Scratch:
    """Where there is no writable place for it there is none, and TMPDIR stays as it is."""

    def __init__(self):
        parent = os.environ.get("TMPDIR") or "/tmp"
        self.path = make_folder(f"{parent.rstrip('/')}/mcp-exec-{os.urandom(8).hex()}")
        self.owner = getpid()

    def empty(self):
        if not self.path:
            return
        try:
            status = lstat(self.path)
            if not S_ISDIR(status.st_mode):
                unlink(self.path)
            elif status.st_mode & 0o7777 != 0o700:
                chmod(self.path, 0o700)
        except OSError:
            pass
        remove_content(self.path)
        make_folder(self.path)  # should it be gone itself

    def remove(self):
        if self.path and self.owner == getpid():
            remove_tree(self.path)
            self.path = None


class Folders:
    """Folders in a scratch, one for a call. One that no call has touched is given out again: on some file systems making one
    takes longer than a call."""

    def __init__(self, scratch):
        self.scratch, self.count = scratch, 0
        self.unused = []  # path, and what stat() said when it was made

    def take(self):
        """Returns a path and what give_back() wants to know; two Nones where there is no scratch."""
        if self.unused:
            return self.unused.pop()
        if not self.scratch.path:
            return None, None
        self.count += 1
        path = make_folder(f"{self.scratch.path}/{self.count}")
        return path, path and look_at(path)

    def give_back(self, path, look):
        if path and look == look_at(path):
            self.unused.append((path, look))
        elif path:
            remove_tree(path)


def look_at(path):
    """Differs after every change of a folder or of what is in it."""
    try:
        status = lstat(path)
        return status.st_ino, status.st_mode, status.st_ctime_ns, status.st_mtime_ns
    except OSError:
        return None


def make_folder(path):
    """Returns the path, None where it can't be made."""
    try:
        mkdir(path, 0o700)
        return path
    except OSError:
        return None


def remove_content(name, parent=None):
    """Follows no link, also where the folder itself has been replaced by one."""
    try:
        folder = open_fd(name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, dir_fd=parent)
    except OSError:
        return
    try:
        with scandir(folder) as entries:
            for entry in list(entries):
                if entry.is_dir(follow_symlinks=False):
                    chmod(entry.name, 0o700, dir_fd=folder)
                    remove_content(entry.name, folder)
                    rmdir(entry.name, dir_fd=folder)
                else:
                    unlink(entry.name, dir_fd=folder)
    except OSError:
        pass
    finally:
        close(folder)


def remove_tree(path):
    try:
        return rmdir(path)  # mostly it is empty
    except FileNotFoundError:
        return
    except OSError:
        pass
    try:
        if not lstat(path).st_mode & 0o700 == 0o700:
            chmod(path, 0o700)
        remove_content(path)
        rmdir(path)
    except NotADirectoryError:
        unlink(path)
    except (OSError, RecursionError):
        try:
            waitpid(posix_spawn("/bin/rm", ["rm", "-rf", "--", path], {}), 0)  # too deep for the above
        except OSError:
            pass
