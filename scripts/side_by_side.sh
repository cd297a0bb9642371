#!/usr/bin/env bash
# The whole pipeline on one machine, several teachers' chains at a time: scripts/side_by_side.sh [AT_ONCE]
#
# Several `dvc repro` in one workspace would each run the stages that all need, and stop each other; `--single-item` runs one stage.
# A chain that fails ends the run when the others' stages have ended; what was done stays done.
set -euo pipefail
at_once=${1:-2}
mapfile -t teachers < <(python -c 'from distillery.core.teachers import teacher_names; print(*teacher_names(), sep="\n")')

# chains STAGES...: for each teacher these stages, one after the other; so many teachers at once
chains() {
    printf '%s\n' "${teachers[@]}" | xargs -P "$at_once" -I '{}' bash -c '
        set -euo pipefail
        teacher=$1; shift
        for stage in "$@"; do dvc repro --single-item "$stage@$teacher"; done' chain '{}' "$@"
}

dvc repro assets assets_teacher benchmarks constrain
chains distill tokenise perplexity curate
dvc repro --single-item parallel
dvc repro --single-item analyse
chains pack train evaluate score
dvc repro
