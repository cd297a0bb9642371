#!/usr/bin/env bash
# Installs the pinned packages into a virtual environment: setup.sh ACCELERATOR PYTHON VENV
#
# Two packages need special handling (docs/log.md has the measurements):
#   torch      the CPU build is not on the main index; pip's configured links are tried first, then PyTorch's own index.
#   deepspeed  its shared-memory operator is compiled here, once; otherwise the first run spends minutes on it, and a
#              killed compile leaves a lock that blocks every later run. Pip's cache may hold a build without
#              the operator, so it is not used.
#
# And two dependencies are not Python packages:
#   punkt      NLTK's English sentence splitter, which IFEval's checkers need; llama-index-core carries it in its wheel.
#   bubblewrap the sandbox for code; the system package or, if that cannot be installed, a copy in the environment.
set -euo pipefail
accelerator=$1 python=$2 venv=$3
lock=requirements/$accelerator.txt

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup: $python is $("$python" -V 2>&1); Python 3.11 or newer is required: make setup PYTHON=/path/to/python3.11" >&2
    exit 1
}
# CPU and GPU builds share version numbers, so pip would not replace one with the other: start from an empty environment.
other=$([ "$accelerator" = cpu ] && echo gpu || echo cpu)
[ ! -e "$venv/.begun-$other" ] || "$python" -m venv --clear "$venv"
[ -x "$venv/bin/pip" ] || "$python" -m venv "$venv"
touch "$venv/.begun-$accelerator"
pip=("$venv/bin/pip" --disable-pip-version-check install --quiet --quiet --no-deps)

uv=$(grep '^uv==' "$lock")
"$venv/bin/uv" --version 2>/dev/null | grep -q "${uv#*==}" || "${pip[@]}" "$uv"
install() { scripts/install.sh "$venv" "$@"; }

torch=$(grep '^torch==' "$lock" | head -1 | cut -d' ' -f1)
deepspeed=$(grep '^deepspeed==' "$lock")
needs='setuptools|ninja|packaging|psutil|py-cpuinfo|numpy|sympy|mpmath|networkx|jinja2|markupsafe|fsspec|filelock|typing-extensions'
has_deepspeed() {
    "$venv/bin/python" -c "import importlib.metadata as m; assert m.version('deepspeed') == '${deepspeed#*==}'" 2>/dev/null
}
everything_else() {
    echo "setup: installing $(grep -c == "$lock") pinned packages from $lock"
    grep -v '^deepspeed==' "$lock" | install --compile-bytecode
    "$venv/bin/python" -m scripts.compile_kernels
}
if [ "$accelerator" = cpu ]; then
    install <<<"$torch" 2>/dev/null || "${pip[@]}" --index-url https://download.pytorch.org/whl/cpu "$torch"
    compiling=
    trap '[ -z "$compiling" ] || kill -- "-$compiling" 2>/dev/null || true' EXIT  # stop the compiler on any exit
    trap 'exit 130' INT TERM
    if ! has_deepspeed; then
        echo "setup: compiling $deepspeed with its CPU communication operator while the rest is installed (about three minutes)"
        grep -E "^($needs)==" "$lock" | install
        DS_ACCELERATOR=cpu DS_BUILD_SHM_COMM=1 PATH="$venv/bin:$PATH" \
            setsid "${pip[@]}" --no-build-isolation --no-cache-dir "$deepspeed" &
        compiling=$!
    fi
    everything_else
    [ -z "$compiling" ] || wait "$compiling"
else
    everything_else
    has_deepspeed || PATH="$venv/bin:$PATH" "${pip[@]}" --no-build-isolation "$deepspeed"
fi

punkt=$venv/nltk_data/tokenizers/punkt_tab/english
if [ ! -e "$punkt/abbrev_types.txt" ]; then
    wheel=$(mktemp -d)
    "$venv/bin/pip" --disable-pip-version-check --quiet --quiet download --no-deps --dest "$wheel" llama-index-core==0.14.25
    mkdir -p "$punkt"
    unzip=("$venv/bin/python" -c 'import sys, zipfile, pathlib
for name in (wheel := zipfile.ZipFile(sys.argv[1])).namelist():
    if "/punkt_tab/english/" in name:
        pathlib.Path(sys.argv[2], name.rsplit("/", 1)[1]).write_bytes(wheel.read(name))')
    "${unzip[@]}" "$wheel"/*.whl "$punkt"
    rm -r "$wheel"
fi

# Tries the system package first, quietly; without bubblewrap code is not verified, and its verdicts say why.
system_bubblewrap() {
    [ "$(id -u)" = 0 ] || return 1
    if command -v apt-get; then
        apt-get install -y bubblewrap libseccomp2 || { apt-get update && apt-get install -y bubblewrap libseccomp2; }
    elif command -v dnf; then dnf install -y bubblewrap libseccomp
    elif command -v apk; then apk add bubblewrap libseccomp
    else return 1; fi
}
own_bubblewrap() {
    local place; place=$(mktemp -d)
    (cd "$place" && apt-get download bubblewrap && dpkg -x bubblewrap_*.deb unpacked) || return 1
    rm -rf "$venv/bubblewrap" && mv "$place/unpacked" "$venv/bubblewrap" && rm -r "$place"
}
if ! command -v bwrap >/dev/null && [ ! -x "$venv/bubblewrap/usr/bin/bwrap" ]; then
    system_bubblewrap >/dev/null 2>&1 || own_bubblewrap >/dev/null 2>&1 ||
        echo "setup: bubblewrap could not be installed; code cannot be verified until your system's \`bubblewrap\` is installed" >&2
fi
