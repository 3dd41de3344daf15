# Sourced by ./penstock and ./test: `environment NAME LOCK` leaves in $python the interpreter of an
# environment that holds exactly what LOCK pins. The usual run costs one comparison of two files.

find_python() {
    for candidate in "${PYTHON:-}" python3.11 python3 python3.12 python3.13 python3.14 python; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            python=$candidate
            return
        fi
        if [ "$candidate" = "${PYTHON:-}" ]; then
            echo "penstock: PYTHON=$PYTHON is not a Python 3.11 or newer" >&2
            exit 1
        fi
    done
    echo "penstock: no Python 3.11 or newer found;" \
        "install one, or name it: PYTHON=/path/to/python3.11 $0" >&2
    exit 1
}

environment() {
    if ! { [ -x "$here/$1/bin/python" ] && cmp -s "$here/$2" "$here/$1/made-from.lock"; }; then
        find_python
        "$python" "$here/tools/environment.py" "$here/$1" "$here/$2" || exit 1
    fi
    python=$here/$1/bin/python
    PYTHONPATH=$here/src${PYTHONPATH:+:$PYTHONPATH}
    export PYTHONPATH
}
