# Sourced by the other scripts: the project's .venv, and Debian's packages.
# Written for sh; the caller has changed to the project's directory.

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

# The interpreter for environments: $PYTHON, else the system's own where it will do, since every user may run that one.
interpreter() {
    if [ -n "${PYTHON:-}" ]; then
        echo "$PYTHON"
    elif /usr/bin/python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        echo /usr/bin/python3
    else
        echo python3
    fi
}

# interpreters: one line for each supported version of Python on this machine: "yes" or "no", version, path.
# "no": not every user may run it, so that tests which run programs as other users cannot pass.  The default comes first.
interpreters() {
    for python in "$(interpreter)" /usr/bin/python3.[1-9][0-9] /usr/local/bin/python3.[1-9][0-9] \
        /opt/hostedtoolcache/Python/*/x64/bin/python3 "${PYENV_ROOT:-${HOME:-/nonexistent}/.pyenv}"/versions/*/bin/python3; do
        "$python" - <<'END' 2>/dev/null || :
import os, sys, ensurepip, venv
if sys.version_info >= (3, 11) and sys.version_info.releaselevel == "final":
    path = os.path.realpath(sys.executable)
    parents = [path]
    while parents[-1] != "/":
        parents.append(os.path.dirname(parents[-1]))
    everybody = all(os.stat(parent).st_mode & 1 for parent in parents)
    print("yes" if everybody else "no", sys.version.split()[0], sys.executable)
END
    done | awk '{ split($2, v, "."); if (!seen[v[2]]++) print }'
}

# pip_install ENVIRONMENT WHAT...: installs these requirements there; pip is heard only if it fails.
pip_install() {
    into=$1
    shift
    echo "installing Python packages into $into" >&2
    "$into/bin/python" -m pip install --quiet --disable-pip-version-check "$@" >"$into/pip.log" 2>&1 || {
        cat "$into/pip.log" >&2
        return 1
    }
}

# need_venv WHAT...: makes .venv if it is not there, and installs these requirements when they have changed.
need_venv() {
    [ -x .venv/bin/python ] || "$(interpreter)" -m venv .venv
    stamp=.venv/installed
    wanted="$* $(cksum pyproject.toml cvm_qmail/gateway/rcptcheck.py)"  # the latter is copied to bin/
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        pip_install .venv "$@"
        printf '%s\n' "$wanted" >"$stamp"
    fi
}

# How pytest spreads the tests over the cores: a file to a core, in the order of tests/conftest.py.
SPREAD="-n auto --dist loadfile --no-loadscope-reorder"

# What the tests need from Python's package index, and what is needed besides to work on the project.
TEST_TOOLS="pytest>=8,<10 pytest-xdist>=3.7,<4 pytest-timeout>=2.3,<3 hypothesis>=6.100,<7"
DEVELOPMENT_TOOLS="mypy>=1.11 ruff>=0.6 build>=1.2 hatchling>=1.27 codespell>=2.3,<3"
EXTRAS=tool,mysql,pgsql,gateway

# The development tools, and the project itself as an editable install.
need_development() {
    need_venv -e ".[$EXTRAS]" $TEST_TOOLS $DEVELOPMENT_TOOLS
}

# The project itself, and no more than is there already.
need_programs() {
    if [ -x .venv/bin/pytest ]; then
        need_development
    else
        need_venv -e '.[tool]'
    fi
}

# need_wheel: builds the wheel; its path.
need_wheel() {
    rm -rf build/wheel
    .venv/bin/python -m build --wheel --outdir build/wheel . >/dev/null
    echo build/wheel/*.whl
}

# need_environment DIRECTORY PYTHON WHAT...: a fresh virtual environment with these requirements and the tools for tests.
need_environment() {
    environment=$1 python=$2
    shift 2
    "$python" -m venv --clear "$environment"
    pip_install "$environment" "$@" $TEST_TOOLS
}

# The programs that the tests run beside ours.
PEERS='cvm mailfront runit libnss-wrapper s6 ipsvd systemd strace acl util-linux man-db groff-base gcc libc6-dev'
PEERS="$PEERS mariadb-server galera-4 rsync postgresql fastforward dot-forward postfix chromium haproxy openssl prometheus"
PEERS="$PEERS logrotate daemontools"
# For qpsmtpd and Exim, which are not installed but unpacked (below).
PEERS="$PEERS libidn12 libgnutls-dane0 libnet-dns-perl libmail-spf-perl libmailtools-perl libipc-shareable-perl"
PEERS="$PEERS libsocket6-perl libio-socket-inet6-perl libdigest-hmac-perl libwww-perl libsasl2-2 libicu72 libnsl2 libdb5.3"

# What scripts/deb needs, and what tests/packages needs besides.
DEB_TOOLS='dpkg-dev debhelper dh-python pybuild-plugin-pyproject python3-all python3-hatchling python3-click python3-rich'
PEERS="$PEERS $DEB_TOOLS lintian mmdebstrap pipx"

# sources: the names of the files of this tree, ended by NUL; those of git, or all where there is no git.
sources() {
    if [ -e .git ]; then
        git ls-files -z --cached --others --exclude-standard
    else
        find . -type f ! -path './build/*' ! -path './dist/*' ! -path './.venv/*' -print0
    fi
}

# copy_sources DIRECTORY: makes a copy of them there, with the same modes whoever made the tree.
copy_sources() {
    mkdir -p "$1"
    sources | tar -c --null -T - | tar -x -C "$1" --no-same-owner
    chmod -R u=rwX,go=rX "$1"
}

# Mail servers for tests/end_to_end.
UNPACKED='postfix exim4-daemon-light qpsmtpd'
HARAKA='Haraka@3.3.4 haraka-plugin-qmail-deliverable@1.4.0'

# need_mail_servers: brings them to build/peers, where they are not installed: nothing starts, the host's own mail server
# and its configuration stay as they are, and Postfix and Exim, which exclude each other, stand side by side.
need_mail_servers() {
    for package in $UNPACKED; do
        [ -d "build/peers/$package" ] && continue
        rm -rf "build/debian/$package"
        mkdir -p "build/debian/$package" build/peers
        (cd "build/debian/$package" && apt-get download -q "$package" >/dev/null 2>&1) || return 1
        dpkg-deb -x build/debian/"$package"/*.deb "build/debian/$package/root" || return 1
        mv "build/debian/$package/root" "build/peers/$package"
    done
    [ -d build/peers/haraka ] && return 0
    command -v npm >/dev/null || need_debian nodejs npm || return 1
    rm -rf build/debian/haraka
    npm install --silent --no-audit --no-fund --ignore-scripts --omit=dev --omit=optional --prefix build/debian/haraka \
        $HARAKA >/dev/null 2>&1 || return 1
    mv build/debian/haraka build/peers/haraka
}
