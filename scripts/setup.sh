# Sourced by the other scripts: the project's .venv, and Debian's packages.
# Written for sh; the caller has changed to the project's folder.

# need_debian PACKAGE...: installs what is missing when we are root, names it and fails when not.
need_debian() {
    missing=
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
    done
    [ -z "$missing" ] && return 0
    if [ "$(id -u)" != 0 ]; then
        echo "missing Debian packages:$missing (install them, or run this as root)" >&2
        return 1
    fi
    echo "installing Debian packages:$missing" >&2
    if ! DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >/dev/null 2>&1; then
        apt-get update -q >/dev/null
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >/dev/null
    fi
}

# The interpreter for environments: the system's own where it will do, since every user may run that one.
interpreter() {
    if /usr/bin/python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        echo /usr/bin/python3
    else
        echo python3
    fi
}

# need_venv WHAT...: makes .venv if it is not there, and installs these requirements when they have changed.
need_venv() {
    [ -x .venv/bin/python ] || "$(interpreter)" -m venv .venv
    stamp=.venv/installed
    wanted="$* $(cksum pyproject.toml)"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"
        printf '%s\n' "$wanted" >"$stamp"
    fi
}

# The development tools, and the project itself as an editable install.
need_development() {
    need_venv -e '.[tool,mysql,pgsql]' 'pytest>=8,<10' 'pytest-xdist>=3.5,<4' 'hypothesis>=6.100,<7' 'mypy>=1.11' 'ruff>=0.6' 'build>=1.2'
}

# The programs that the tests run beside ours.
PEERS='cvm mailfront runit libnss-wrapper s6 ipsvd systemd strace acl util-linux man-db groff-base gcc libc6-dev'
PEERS="$PEERS mariadb-server postgresql"
