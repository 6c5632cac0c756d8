"""How the broker wants a Python executor: isolation, preloads. And the search path that the code finds."""

from . import own_builtins as __builtins__  # noqa: F401

import os
import sys

from .descriptors import lift, take

ISOLATIONS = "shared", "reset", "fork", "fresh"
ORIGINAL_ARGV = sys.orig_argv[:]
RESUME = "MCP_EXEC_RESUME"


class Setup:
    def __init__(self, own_paths, isolations=ISOLATIONS):
        self.environ = dict(os.environb)
        self.visible = set(sys.modules)  # what any Python has imported at its start
        self.isolation = os.environ.pop("MCP_EXEC_ISOLATION", "") or "shared"
        self.preload = [name for name in os.environ.pop("MCP_EXEC_PRELOAD", "").split(",") if name]
        self.concurrency = read_concurrency()
        self.resumed = read_resumed(os.environ.pop(RESUME, ""))
        if self.isolation not in isolations:
            raise ValueError(f"MCP_EXEC_ISOLATION is none of {', '.join(isolations)}")
        sys.path[:] = [path for path in sys.path if path not in own_paths]
        self.environ.pop(RESUME.encode(), None)

    def provide_site(self):
        """What Python runs at its start, unless with -S as here: the folders of installed packages, exit(), ..."""
        before = set(sys.modules)
        if sys.flags.no_site:
            import site

            if self.isolation == "fresh":
                # It takes a quarter of the time of a start, and most calls need nothing of it.
                site.setquit()
                sys.meta_path.append(LateSite(site))
            else:
                site.main()
        # The code imports from its working directory, and finds an empty __main__ instead of this program.
        sys.argv[:] = [""]
        sys.path.insert(0, "")
        self.visible |= sys.modules.keys() - before

    def preload_modules(self):
        """Returns what went wrong."""
        before = set(sys.modules)
        for name in self.preload:
            try:
                __import__(name)
            except BaseException as error:
                return f"cannot preload {name}: {type(error).__name__}: {error}"
        self.visible |= sys.modules.keys() - before
        return None

    def protocol_fds(self):
        """Input, output and errors, among our own descriptors."""
        return [take(fd) for fd in self.resumed["fds"]] if self.resumed else [lift(fd) for fd in (0, 1, 2)]

    def hide_own_modules(self):
        """The code shall not come across them. From here on, none of them imports another."""
        package = __name__.partition(".")[0]
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            del sys.modules[name]


class LateSite:
    """Asked last for a module that nobody has found: runs `site`, which may add folders, and has them asked again."""

    def __init__(self, site):
        self.site, self.path = site, sys.path[:]

    def find_spec(self, name, path=None, target=None):
        sys.meta_path.remove(self)
        before = sys.path[:]
        sys.path[:] = self.path  # without the working directory, which `site` would make absolute
        try:
            self.site.main()
        finally:
            sys.path[:] = before + [folder for folder in sys.path if folder not in before]
        for finder in sys.meta_path:
            if spec := finder.find_spec(name, path, target):
                return spec
        return None


def read_concurrency():
    return max(1, int(os.environ.pop("MCP_EXEC_CONCURRENCY", "") or 1))


def read_resumed(text):
    """What the process has left for itself when it started itself anew: see reset.py."""
    if not text:
        return {}
    import marshal

    with open(int(text), "rb") as file:
        return marshal.load(file)
