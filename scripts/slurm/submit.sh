#!/usr/bin/env bash
# Submits the whole pipeline to Slurm, a job per stage and teacher or arm, each after those that it needs: scripts/slurm/submit.sh
#
# Options for sbatch come from the environment: SBATCH_ALL for all jobs, SBATCH_CPU and SBATCH_GPU for those without and with a GPU,
# SBATCH_TRAIN for training. For instance
#
#   SBATCH_ALL="--account=mine --time=24:00:00" SBATCH_CPU="--partition=cpu --cpus-per-task=64 --mem=200G" \
#   SBATCH_GPU="--partition=gpu --gpus-per-node=8" SBATCH_TRAIN="--partition=gpu --gpus-per-node=8" scripts/slurm/submit.sh
set -euo pipefail
export PATH=$PWD/.venv/bin:$PATH
mkdir -p .logs
declare -A job

# submit KIND STAGE [STAGES THAT IT NEEDS...]
submit() {
    local options="SBATCH_$1" stage=$2 after=; shift 2
    for needed in "$@"; do after+=:${job[$needed]}; done
    # shellcheck disable=SC2086  # options are words
    job[$stage]=$(sbatch --parsable --job-name="$stage" ${after:+--dependency=afterok$after} --kill-on-invalid-dep=yes \
        ${SBATCH_ALL:-} ${!options:-} scripts/slurm/stage.sbatch "$stage" | cut -d';' -f1)
    echo "submit: $stage is job ${job[$stage]}${after:+, after ${after#:}}"
}

listed=$(python -c 'from distillery.core.teachers import teacher_names; print(*teacher_names())')
read -ra teachers <<<"$listed"
listed=$(python -c 'from distillery.core.arms import arm_names; print(*arm_names())')
read -ra arms <<<"$listed"
# each STAGE NAMES...
each() { for name in "${@:2}"; do echo "$1@$name"; done; }

submit CPU code
submit CPU assets code
submit CPU benchmarks code
submit CPU collect code
submit CPU clean collect
submit GPU similarity clean benchmarks assets
submit CPU decontaminate similarity
submit GPU constrain decontaminate
submit GPU evaluate_base assets benchmarks
submit CPU score_base evaluate_base
for teacher in "${teachers[@]}"; do
    submit CPU "assets_teacher@$teacher" assets
    submit GPU "distill@$teacher" constrain "assets_teacher@$teacher"
    submit CPU "tokenise@$teacher" "distill@$teacher"
    submit GPU "perplexity@$teacher" "distill@$teacher"
    submit CPU "curate@$teacher" "tokenise@$teacher" "perplexity@$teacher"
done
# shellcheck disable=SC2046  # names of stages have no spaces
submit CPU parallel $(each curate "${teachers[@]}")
submit CPU analyse parallel
submit GPU forecast parallel
for arm in "${arms[@]}"; do
    submit CPU "pack@$arm" parallel
    submit TRAIN "train@$arm" "pack@$arm"
    submit GPU "evaluate@$arm" "train@$arm"
    submit CPU "score@$arm" "evaluate@$arm"
done
# shellcheck disable=SC2046
submit CPU compare $(each score "${arms[@]}") score_base
submit CPU outcomes compare forecast
submit CPU headline compare analyse
submit CPU report headline outcomes
