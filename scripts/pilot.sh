#!/usr/bin/env bash
# A pilot in a work tree of its own, .pilot: students of small shares of the data, learning curves, and whether the rest of the
# data can change who is ahead. It shares ledger, trainings and DVC's cache with this project: the full run finds what it trained.
set -euo pipefail
if [ -n "$(git status --porcelain -- distillery stages conf dvc.yaml)" ]; then
    echo "pilot: commit your changes to code and conf/ first; the pilot runs in a work tree of the last commit" >&2
    exit 1
fi
root=$PWD
mkdir -p .ledger .checkpoints
git worktree prune
[ -d .pilot ] || git worktree add --quiet --detach .pilot HEAD
git -C .pilot checkout --quiet --detach --force "$(git rev-parse HEAD)"
cd .pilot
cp "$root/params.yaml" .
[ ! -f "$root/dvc.lock" ] || cp "$root/dvc.lock" .
[ ! -f "$root/pins.json" ] || cp "$root/pins.json" .
# Data of one's own need not be committed.
world=$(python -c 'import yaml; print(yaml.safe_load(open("params.yaml"))["world"])')
if [ -n "$(git -C "$root" status --porcelain -- "$world")" ]; then
    rm -rf "$world"
    mkdir -p "$(dirname "$world")"
    cp -r "$root/$world" "$world"
fi
for shared in .ledger .checkpoints; do ln -sfn "$root/$shared" "$shared"; done
dvc config --local cache.dir "$root/.dvc/cache"
dvc checkout --quiet 2>/dev/null || true  # what the cache lacks is computed
python -m distillery.evaluation.pilot params
python -m distillery.core.pipeline compare
python -m distillery.evaluation.pilot show
mkdir -p "$root/data/pilot"
cp metrics/pilot.json "$root/data/pilot/"
