"""Importing Python's own modules late, whatever the code has done to the search path or has in its working directory."""

from . import own_builtins as __builtins__  # noqa: F401

import os
import sys

FOLDER = getattr(sys, "_stdlib_dir", None) or os.path.dirname(os.__file__)
PATH = [path for path in sys.path if (path + "/").startswith(FOLDER + "/") and "-packages" not in path
        or path.endswith(".zip")]


def import_standard(*names):
    """Returns Python's own modules of these names. Those of the same names that the code has imported stay in place."""
    others = {name: sys.modules.pop(name) for name in names if not is_standard(sys.modules.get(name))}
    path = sys.path[:]
    sys.path[:] = PATH
    try:
        return [__import__(name) for name in names]
    finally:
        sys.path[:] = path
        sys.modules.update(others)


def is_standard(module):
    """Whether it is Python's own; None is."""
    file = getattr(module, "__file__", None)
    return not file or (file.startswith(FOLDER + "/") and "-packages/" not in file)
