#!/usr/bin/env bash
# Installs the full lock into a virtual environment: install.sh ACCELERATOR PYTHON VENV
#
# Two packages need care (docs/log.md has the measurements):
#   torch      the CPU build is not on the main index; pip's configured links are tried first, then PyTorch's own index.
#   deepspeed  its shared-memory operator is compiled here, once; left to the first run it takes minutes and a
#              killed compile leaves a lock on which every later run waits for ever. Pip's cache may hold a build
#              without the operator, so it is passed over.
set -euo pipefail
accelerator=$1 python=$2 venv=$3
lock=requirements/$accelerator.txt

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup: $python is $("$python" -V 2>&1), needed is Python 3.11 or newer: make setup PYTHON=/path/to/python3.11" >&2
    exit 1
}
[ -x "$venv/bin/pip" ] || "$python" -m venv "$venv"
pip=("$venv/bin/pip" --disable-pip-version-check install --quiet --quiet --no-deps)

torch=$(grep '^torch==' "$lock" | head -1 | cut -d' ' -f1)
if [ "$accelerator" = cpu ]; then
    "${pip[@]}" "$torch" 2>/dev/null || "${pip[@]}" --index-url https://download.pytorch.org/whl/cpu "$torch"
fi
echo "setup: installing $(grep -c == "$lock") pinned packages from $lock"
grep -v '^deepspeed==' "$lock" | "${pip[@]}" -r /dev/stdin

deepspeed=$(grep '^deepspeed==' "$lock")
if ! "$venv/bin/python" -c "import importlib.metadata as m; assert m.version('deepspeed') == '${deepspeed#*==}'" 2>/dev/null; then
    if [ "$accelerator" = cpu ]; then
        echo "setup: compiling $deepspeed with its CPU communication operator (about two minutes)"
        DS_ACCELERATOR=cpu DS_BUILD_SHM_COMM=1 PATH="$venv/bin:$PATH" "${pip[@]}" --no-build-isolation --no-cache-dir "$deepspeed"
    else
        PATH="$venv/bin:$PATH" "${pip[@]}" --no-build-isolation "$deepspeed"
    fi
fi
