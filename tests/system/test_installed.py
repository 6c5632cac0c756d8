"""The installed service on a real system bus, in a throwaway systemd: as the README says, from meson install on."""

import os
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
CALL = "busctl call org.example.McpExec /org/example/McpExec org.example.McpExec CallTool sss python run"
SCRIPT = f"""
set -e
meson install -C BUILD --no-rebuild >/dev/null
systemd-sysusers
busctl call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus ReloadConfig
echo "first: $({CALL} '{{"code":"import os; print(os.getuid() > 0)"}}')"
echo "uid: $(id -u mcp-exec)"
echo "processes: $(ps -eo user:20,args | grep '[/]usr/libexec/mcp-exec' | awk '{{print $1}}' | sort -u)"
echo "stranger: $(runuser -u nobody -- {CALL} '{{"code":"1"}}' 2>&1)"
"""


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    folder = tmp_path_factory.mktemp("installed")
    folder.chmod(0o755)
    subprocess.run(["meson", "setup", folder, REPO, "--prefix=/usr"], check=True, timeout=120, capture_output=True)
    subprocess.run(["ninja", "-C", folder, "src/mcp-execd"], check=True, timeout=300, capture_output=True)
    return folder


@pytest.mark.skipif(os.geteuid() != 0, reason="booting a systemd needs root")
@pytest.mark.parametrize("bus", ["daemon", "broker"])
def test_activated_on_the_system_bus(build, bus):
    script = build / "script"
    script.write_text(SCRIPT.replace("BUILD", str(build)).replace("> 0", "> 0"))
    run = subprocess.run([REPO / "tests/with-systemd", "--bus", bus, "--bind", REPO, "--bind", build, "--", "bash", script],
                         capture_output=True, text=True, timeout=120)
    said = dict(line.split(": ", 1) for line in run.stdout.splitlines() if ": " in line)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "True" in said["first"]
    assert said["processes"] == "mcp-exec"
    assert "denied" in said["stranger"].lower()
