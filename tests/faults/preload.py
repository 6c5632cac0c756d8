"""What preload.c does in the service, said from outside while it runs."""

import mmap
import os
import struct

from service import BUILD

LIBRARY = os.environ.get("MCP_EXEC_FAULTS_LIBRARY", str(BUILD / "tests/faults/libfaults.so"))

# struct Faults
LAYOUT = struct.Struct("=IIIIIIIIq")
ARMED, COUNT, FIRST, LAST, FAILED, MEMFD_ERROR, WRITE_ERROR, WRITE_ROOM, WALL_SECONDS = 0, 4, 8, 12, 16, 20, 24, 28, 32
FOR_EVER = 0xFFFFFFFF


class Faults:
    def __init__(self, path):
        self.path = path
        path.write_bytes(bytes(LAYOUT.size))
        self._file = open(path, "r+b")
        self._memory = mmap.mmap(self._file.fileno(), LAYOUT.size)

    def close(self):
        self._memory.close()
        self._file.close()

    def environment(self):
        return {"LD_PRELOAD": LIBRARY, "MCP_EXEC_FAULTS": str(self.path)}

    def _set(self, offset, value):
        struct.pack_into("=I", self._memory, offset, value)

    def _get(self, offset):
        return struct.unpack_from("=I", self._memory, offset)[0]

    def fail_allocations(self, first, last=None):
        """From now on the first-th allocation fails (the next is 1), to the last-th, or it alone."""
        self._set(ARMED, 0)
        self._set(COUNT, 0)
        self._set(FAILED, 0)
        self._set(FIRST, first)
        self._set(LAST, first if last is None else last)
        self._set(ARMED, 1)

    def stop_failing(self):
        """Returns how many allocations failed, and how many there were."""
        self._set(ARMED, 0)
        return self._get(FAILED), self._get(COUNT)

    def fail_memfds(self, error):
        """memfd_create(2) fails with this errno; 0: no longer."""
        self._set(MEMFD_ERROR, error)

    def fail_writes(self, error, room=0):
        """pwrite(2) fails with this errno behind so many bytes of a file; 0: no longer."""
        self._set(WRITE_ROOM, room)
        self._set(WRITE_ERROR, error)

    def set_wall_clock(self, seconds):
        """CLOCK_REALTIME is so much ahead."""
        struct.pack_into("=q", self._memory, WALL_SECONDS, seconds)
