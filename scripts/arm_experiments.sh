#!/usr/bin/env bash
# Compares two arms as DVC experiments: arm_experiments.sh A B
#
# Each experiment runs only `headline`, in a temporary folder (--temp), so the workspace is unchanged. By hand:
#   dvc exp run --temp -n A -S headline.arm=A headline     (likewise B)
#   dvc metrics diff A B --all ; dvc plots diff A B ; dvc exp show
set -euo pipefail
a=${1:?which arms? make experiments A=adaptive B=verbose} b=${2:?which arms? make experiments A=adaptive B=verbose}
for arm in "$a" "$b"; do
    python - "$arm" <<'CHECK'
import sys
from distillery.core.arms import arm_names
arms = arm_names()
if sys.argv[1] not in arms:
    sys.exit(f"experiments: {sys.argv[1]!r} is not an arm; there are {', '.join(arms)}")
CHECK
    dvc exp remove --quiet "$arm" 2>/dev/null || true  # of an earlier comparison
    dvc exp run --quiet --temp --name "$arm" --set-param "headline.arm=$arm" headline
done
dvc metrics diff "$a" "$b" --all --targets metrics/student.json
dvc plots diff "$a" "$b" --targets data/headline/lengths.csv data/headline/loss.csv --out .dvc/tmp/compare
echo "more: open the plots above, or dvc exp show --drop '.*' --keep 'Experiment|.*student.json.*pass.*'"
echo "delete both: dvc exp remove $a $b"
