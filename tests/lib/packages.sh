# shellcheck shell=bash disable=SC2034
# The Debian packages that building and testing need. Sourced by tests/demo and tests/check.

# What the build needs, and what a call on a bus needs. COMMAND=PACKAGE: any source of the command will do.
packages_build=(gcc=gcc pkg-config=pkgconf meson=meson ninja=ninja-build libc6-dev libsystemd-dev libcjson-dev)
packages_demo=(dbus-daemon=dbus-daemon busctl=systemd python3=python3)
packages_check=(python3-pytest python3-pytest-xdist python3-pytest-timeout python3-gi python3-dbus python3-dasbus
    python3-dbus-next python3-jeepney python3-yaml gjs gdbus=libglib2.0-bin dbus-send=dbus-bin dbus-broker-launch=dbus-broker systemd polkitd dbus-user-session node=nodejs npm=npm
    scdoc=scdoc zsh=zsh go=golang-go golang-dbus-dev)

# Say what is missing and install it: as root, else through sudo, else say how.
need_packages() {
    local want missing=() as_root=()
    for want; do
        if [[ $want == *=* ]]; then
            PATH=$PATH:/usr/sbin:/usr/bin command -v "${want%%=*}" >/dev/null || missing+=("${want#*=}")
        else
            [[ $(dpkg-query -W -f '${db:Status-Status}' "$want" 2>/dev/null || true) == installed ]] || missing+=("$want")
        fi
    done
    ((${#missing[@]})) || return 0

    if ! command -v apt-get >/dev/null; then
        echo "These Debian packages, or what your distribution calls them, are missing: ${missing[*]}" >&2
        return 1
    fi
    if ((EUID != 0)); then
        if ! command -v sudo >/dev/null; then
            echo "Some packages are missing, and there is neither root nor sudo to install them. As root, run:" >&2
            echo "    apt-get install --no-install-recommends ${missing[*]}" >&2
            return 1
        fi
        as_root=(sudo)
    fi

    echo "Installing Debian packages: ${missing[*]}"
    local log
    log=$(mktemp)
    if ! { "${as_root[@]}" apt-get update &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
        tail -n 30 "$log" >&2
        rm -f "$log"
        echo "apt-get could not install: ${missing[*]}" >&2
        return 1
    fi
    rm -f "$log"
}
