"""What modules, their classes, instances and containers look like, and how they are put back.

Compared and restored by identity alone: nothing here asks an object of the code's whether it is equal to another.
"""

from . import own_builtins as __builtins__  # noqa: F401

import sys
from _collections import deque
from _operator import is_

HEAP_TYPE, IMMUTABLE_TYPE = 1 << 9, 1 << 8
CONTAINERS = dict, list, set, deque
STREAMS = {"stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__"}  # Streams.renew() looks after them
Module = type(sys)


namespace_of = type.__dict__["__dict__"].__get__  # of a class, whatever its metaclass says


def is_same(current, keys, values):
    """Whether a dict's content is what it was. A key that is added, or replaces another, comes last."""
    return len(current) == len(values) and all(map(is_, current.values(), values)) and \
        (not keys or next(reversed(current)) is keys[-1])


class Namespaces:
    """A picture of everything that can be reached from the modules in one or two steps, and belongs to them."""

    def __init__(self, modules):
        self.seen = set()
        self.dicts, self.classes, self.containers = [], [], []
        self.caches = []  # functions with functools.lru_cache
        for module in modules:
            self.add_module(module)

    def add_module(self, module):
        namespace = module.__dict__
        if id(namespace) in self.seen:
            return
        self.add_dict(namespace, STREAMS if module is sys else ())
        for value in list(namespace.values()):
            self.add_value(value, module.__name__)

    def add_dict(self, namespace, without=()):
        self.seen.add(id(namespace))
        self.dicts.append((namespace, list(namespace), list(namespace.values()), without))

    def add_value(self, value, owner):
        kind = type(value)
        if id(value) in self.seen:
            return
        if kind in CONTAINERS:
            if value is not sys.modules:
                self.add_container(value)
        elif isinstance(value, type):
            if namespace_of(value).get("__module__") == owner and value.__flags__ & HEAP_TYPE and not value.__flags__ & IMMUTABLE_TYPE:
                self.add_class(value, owner)
        elif kind.__name__ == "_lru_cache_wrapper":
            self.caches.append(value.cache_clear)
        elif kind.__module__ == owner and kind.__flags__ & HEAP_TYPE and "Enum" not in type(kind).__name__:
            self.add_instance(value, owner)

    def add_container(self, value):
        self.seen.add(id(value))
        if type(value) is dict:
            self.containers.append((value, list(value), list(value.values())))
        else:
            self.containers.append((value, None, list(value)))

    def add_class(self, value, owner):
        self.seen.add(id(value))
        namespace = namespace_of(value)
        self.classes.append((value, namespace, list(namespace), list(namespace.values())))
        for attribute in list(namespace.values()):
            self.add_value(attribute, owner)

    def add_instance(self, value, owner):
        try:
            namespace = object.__getattribute__(value, "__dict__")
        except Exception:
            return
        if type(namespace) is dict and id(namespace) not in self.seen:
            self.seen.add(id(value))
            self.add_dict(namespace)
            for attribute in list(namespace.values()):
                if type(attribute) in CONTAINERS and id(attribute) not in self.seen:
                    self.add_container(attribute)

    def restore(self):
        """Puts everything back. Returns whether anything had to be."""
        changed = False
        for current, keys, values, without in self.dicts:
            if not is_same(current, keys, values):
                changed |= restore_dict(current, keys, values, without)
        for value, namespace, keys, values in self.classes:
            if not is_same(namespace, keys, values):
                restore_class(value, namespace, keys, values)
                changed = True
        for current, keys, values in self.containers:
            if keys is None:
                if len(current) != len(values) or not all(map(is_, current, values)):
                    current.clear()
                    (current.update if type(current) is set else current.extend)(values)
                    changed = True
            elif not is_same(current, keys, values):
                current.clear()
                current.update(zip(keys, values))
                changed = True
        for clear in self.caches:
            clear()
        return changed


def restore_dict(current, keys, values, without):
    wanted, changed = dict(zip(keys, values)), False
    # Not clear() and update(): what the interpreter has learned about a module's names would be lost.
    for key in list(current):
        if key not in wanted:
            del current[key]
            changed = True
    for key, value in wanted.items():
        if key not in current or current[key] is not value and key not in without:
            current[key] = value
            changed = True
    keys[:], values[:] = current, current.values()  # in the order that they have now
    return changed


def restore_class(value, namespace, keys, values):
    wanted = dict(zip(keys, values))
    for key in list(namespace):
        if key not in wanted:
            try:
                type.__delattr__(value, key)
            except Exception:
                pass
    for key, attribute in wanted.items():
        if namespace.get(key) is not attribute:
            try:
                type.__setattr__(value, key, attribute)
            except Exception:
                pass
    keys[:], values[:] = namespace, namespace.values()
