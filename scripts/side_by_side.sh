#!/usr/bin/env bash
# The whole pipeline on one machine, several chains of teachers and arms at a time: scripts/side_by_side.sh [AT_ONCE]
#
# Several `dvc repro` in one workspace would each run the stages that all need, and stop each other; `--single-item` runs one
# stage. DVC's lock is waited for: by default a stage that has ended is lost when another one commits for over three seconds.
# A chain that fails ends the run when the other chains have ended; what was done stays done.
set -euo pipefail
at_once=${1:-2}
teachers=$(python -c 'from distillery.core.teachers import teacher_names; print(*teacher_names(), sep="\n")')
arms=$(python -c 'from distillery.core.arms import arm_names; print(*arm_names(), sep="\n")')

# chains NAMES STAGES...: for each teacher or arm these stages, one after the other; so many of them at once
chains() {
    local names=$1; shift
    printf '%s\n' "$names" | xargs -P "$at_once" -I '{}' bash -c '
        set -euo pipefail
        name=$1; shift
        for stage in "$@"; do
            dvc repro --wait-for-lock --single-item "$stage@$name" || exit 1  # xargs would stop at the 255 of dvc
        done' chain '{}' "$@"
}

[ -s .dvc/tmp/rwlock ] || rm -f .dvc/tmp/rwlock  # a killed run can leave it empty, and dvc then refuses to start
dvc repro assets assets_teacher benchmarks constrain
chains "$teachers" distill tokenise perplexity curate
dvc repro --single-item parallel
dvc repro --single-item analyse
dvc repro --single-item forecast
chains "$arms" pack train evaluate score
dvc repro
