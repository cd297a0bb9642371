#!/usr/bin/env bash
# The training bench on a machine with one GPU that has PyTorch, transformers and accelerate, and no network.
#
#   bench/gpu.sh wheels [PYTHON]   where there is a network: collects what else is needed in build/gpu-wheels (under 60 MB),
#                                  for the Python version of the other machine, such as 3.12
#   bench/gpu.sh run [ARGUMENTS]   on the machine: installs the wheels into build/gpu-packages and runs bench.gpu
set -euo pipefail
cd "$(dirname "$0")/.."
wheels=$PWD/build/gpu-wheels packages=$PWD/build/gpu-packages
case ${1:-} in
wheels)
    version=${2:-$(python3 -c 'import sys; print(f"{sys.version_info[0]}.{sys.version_info[1]}")')}
    rm -rf "$wheels" && mkdir -p "$wheels"
    pip=(python3 -m pip --disable-pip-version-check --quiet)
    grep -v '^deepspeed==' requirements/gpu-bench.txt |
        "${pip[@]}" download --no-deps --only-binary :all: --python-version "$version" --dest "$wheels" -r /dev/stdin
    # DeepSpeed has no wheel; without its operators, which this bench does not use, it is the same for every Python.
    DS_BUILD_OPS=0 "${pip[@]}" wheel --no-deps --no-build-isolation --wheel-dir "$wheels" "$(grep '^deepspeed==' requirements/gpu-bench.txt)"
    du -sh "$wheels"
    ;;
run)
    shift
    python3 -m pip --disable-pip-version-check --quiet install --no-index --no-deps --upgrade --target "$packages" "$wheels"/*.whl
    PYTHONPATH=$PWD:$packages exec python3 -m bench.gpu "$@"
    ;;
*)
    sed -n '2,7s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
