#!/usr/bin/env bash
# Installs the requirements that it reads into a virtual environment: install.sh VENV [OPTIONS OF UV] <requirements
#
# uv unpacks on all cores, pip on one: 17 s against 58 for the whole lock. It is told where pip is configured to look; where that
# is not enough for it, pip installs.
set -euo pipefail
venv=$1; shift
pip=("$venv/bin/pip" --disable-pip-version-check)
setting() { "${pip[@]}" config get "global.$1" 2>/dev/null | tr -s ' \n' ',' | sed 's/,*$//'; }
told=()
tell() { [ -z "$2" ] || told+=("$1=$2"); }
tell UV_DEFAULT_INDEX "${PIP_INDEX_URL:-$(setting index-url)}"
tell UV_INDEX "$(tr ',' ' ' <<<"${PIP_EXTRA_INDEX_URL:-$(setting extra-index-url)}")"
tell UV_FIND_LINKS "${PIP_FIND_LINKS:-$(setting find-links)}"
tell SSL_CERT_FILE "${PIP_CERT:-${SSL_CERT_FILE:-$(setting cert)}}"
wanted=$(cat)
env "${told[@]}" "$venv/bin/uv" pip install --quiet --no-deps --index-strategy unsafe-best-match \
    --python "$venv/bin/python" "$@" -r - <<<"$wanted" 2>/dev/null ||
    "${pip[@]}" install --quiet --quiet --no-deps -r /dev/stdin <<<"$wanted"
