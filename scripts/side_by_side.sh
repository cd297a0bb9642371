#!/usr/bin/env bash
# The whole pipeline on one machine, several chains of stages at a time: scripts/side_by_side.sh [AT_ONCE]
#
# Several `dvc repro` in one workspace would each run the stages that all need, and stop each other; `--single-item` runs one
# stage. DVC's lock is waited for: by default a stage that has ended is lost when another one commits for over three seconds.
# A chain that fails ends the run when the other chains have ended; what was done stays done.
set -euo pipefail
at_once=${1:-2}
teachers=$(python -c 'from distillery.core.teachers import teacher_names; print(*teacher_names())')
arms=$(python -c 'from distillery.core.arms import arm_names; print(*arm_names())')

# chains: each line of the input is a chain, stages to run one after the other; so many chains at once
chains() {
    xargs -P "$at_once" -L 1 bash -c '
        set -euo pipefail
        for stage in "$@"; do
            dvc --wait-for-lock repro --single-item "$stage" || exit 1  # xargs would stop at the 255 of dvc
        done' chain
}

[ -s .dvc/tmp/rwlock ] || rm -f .dvc/tmp/rwlock  # a killed run can leave it empty, and dvc then refuses to start
dvc repro assets assets_teacher benchmarks constrain
{
    for teacher in $teachers; do echo "distill@$teacher tokenise@$teacher perplexity@$teacher curate@$teacher"; done
    echo evaluate_base score_base
} | chains
dvc repro --single-item parallel
{
    for arm in $arms; do echo "pack@$arm train@$arm evaluate@$arm score@$arm"; done
    echo analyse forecast
} | chains
dvc repro
