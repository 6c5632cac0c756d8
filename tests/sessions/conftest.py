"""mcp-exec stdio with the clients and servers that others wrote (tests/npm): the fixtures of the command line's tests."""

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent / "cli"))
spec = importlib.util.spec_from_file_location("cli_conftest", HERE.parent / "cli/conftest.py")
cli_conftest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cli_conftest)
make_service, service, caller, cli = cli_conftest.make_service, cli_conftest.service, cli_conftest.caller, cli_conftest.cli
pytest_configure, pytest_report_header = cli_conftest.pytest_configure, cli_conftest.pytest_report_header
pytest_collection_modifyitems = cli_conftest.pytest_collection_modifyitems
pytest_runtest_makereport = cli_conftest.pytest_runtest_makereport
