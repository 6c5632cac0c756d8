"""JSON, strictly, by the C functions beneath the module json: importing that takes as long as a third of a start."""

from . import own_builtins as __builtins__  # noqa: F401

try:
    from _json import encode_basestring, make_encoder, make_scanner
except ImportError:
    encode_basestring = make_encoder = make_scanner = None


def refuse_constant(name):
    raise ValueError(f"{name} is no JSON")


def refuse(value):
    raise TypeError(f"{type(value).__name__} is no JSON")


class Settings:
    """What json.JSONDecoder hands to its scanner."""

    strict = True
    object_hook = object_pairs_hook = array_hook = None
    parse_float, parse_int = float, int
    parse_constant = staticmethod(refuse_constant)
    memo = {}


def make_codec():
    scan = make_scanner(Settings)
    write = make_encoder(None, refuse, encode_basestring, None, ":", ",", False, False, False)

    def decode(text):
        text = text.strip(" \t\r\n")
        try:
            value, end = scan(text, 0)
        except StopIteration:
            raise ValueError("no JSON value") from None
        except SystemError:  # the error, which json.decoder defines, where that isn't imported
            raise ValueError("invalid JSON") from None
        if end != len(text):
            raise ValueError(f"text after the value, at character {end}")
        return value

    def encode(value):
        return "".join(write(value, 0))

    if decode(encode({"a": [1, 1.5, "ä\n", None, True]})) != {"a": [1, 1.5, "ä\n", None, True]}:
        raise ValueError
    return decode, encode


try:
    decode, encode = make_codec()
except Exception:  # a Python whose private functions are others
    import json

    decode = json.JSONDecoder(parse_constant=refuse_constant).decode
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode
