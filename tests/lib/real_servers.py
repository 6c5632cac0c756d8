"""The real MCP servers of tests/npm and the bundled executors: where they are, how they are started."""

import os
import shutil
from pathlib import Path

import pytest

from service import BUILD, REPO

NODE = shutil.which("node") or shutil.which("nodejs")


def npm_folder():
    """The folder that has node_modules: MCP_EXEC_TEST_NPM, build/npm, or tests/npm."""
    for folder in (os.environ.get("MCP_EXEC_TEST_NPM"), BUILD / "npm", REPO / "tests/npm"):
        if folder and (Path(folder) / "node_modules/@modelcontextprotocol/server-everything").is_dir():
            return Path(folder)
    return None


def needs_npm():
    if not NODE or not npm_folder():
        pytest.skip("the servers of tests/npm are not installed (npm ci)")


def everything(service, name="everything", **keys):
    """server-everything: legacy era, by the protocol's own people."""
    needs_npm()
    script = npm_folder() / "node_modules/@modelcontextprotocol/server-everything/dist/index.js"
    return service.server(name, NODE, script, "stdio", **keys)


def stateless(service, name="stateless", *args, env=None, **keys):
    """tests/workers/stateless.mjs: the stateless era, by the SDK's serveStdio."""
    needs_npm()
    return service.server(name, NODE, REPO / "tests/workers/stateless.mjs", *args,
                          env={"MCP_EXEC_TEST_NPM": str(npm_folder()), **(env or {})}, **keys)
