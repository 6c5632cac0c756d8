"""Modules that are loaded, and yet not there until the code imports them."""

from . import own_builtins as __builtins__  # noqa: F401

import sys

Module = type(sys)
ModuleSpec = type(sys.__spec__)


class Parked:
    """The first finder of sys.meta_path: gives out what it has instead of loading it anew.

    Loading a module of Python's own again and again would take its time, and leak: many leave something with the
    interpreter that can't be taken back, such as what os.register_at_fork() is given.
    """

    def __init__(self, modules):
        self.modules = modules
        self.specs = {name: getattr(module, "__spec__", None) for name, module in modules.items()}
        self.needs = {name: self.find_needs(module) for name, module in modules.items()}
        self.given = set()  # names, since the last call began

    def find_needs(self, module):
        """The parked modules that it, imported in earnest, would bring along."""
        needs = set()
        for value in list(module.__dict__.values()):
            name = value.__name__ if type(value) is Module else getattr(value, "__module__", None)
            if type(name) is str and name in self.modules and self.modules[name] is not module:
                needs.add(name)
        return needs

    def with_needs(self, names):
        found, pending = set(), [name for name in names if name in self.modules]
        while pending:
            name = pending.pop()
            if name not in found:
                found.add(name)
                pending += self.needs[name]
                if "." in name and name.rpartition(".")[0] in self.modules:
                    pending.append(name.rpartition(".")[0])
        return found

    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name in self.modules else None

    def create_module(self, spec):
        return self.modules[spec.name]

    def exec_module(self, module):
        name = module.__spec__.name
        module.__spec__ = self.specs[name]
        for other in self.with_needs([name]):
            sys.modules.setdefault(other, self.modules[other])
            self.given.add(other)
