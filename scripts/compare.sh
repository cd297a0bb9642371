#!/usr/bin/env bash
# Compares two teachers as DVC experiments: compare.sh A B
#
# Each experiment runs only `headline`, in a temporary folder (--temp), so the workspace is unchanged. By hand:
#   dvc exp run --temp -n A -S headline.teacher=A headline     (likewise B)
#   dvc metrics diff A B --all ; dvc plots diff A B ; dvc exp show
set -euo pipefail
a=${1:?which teachers? make compare A=adaptive B=verbose} b=${2:?which teachers? make compare A=adaptive B=verbose}
for teacher in "$a" "$b"; do
    python - "$teacher" <<'CHECK'
import sys
from distillery.core.teachers import teacher_names
teachers = teacher_names()
if sys.argv[1] not in teachers:
    sys.exit(f"compare: {sys.argv[1]!r} is not a teacher; there are {', '.join(teachers)}")
CHECK
    dvc exp remove --quiet "$teacher" 2>/dev/null || true  # of an earlier comparison
    dvc exp run --quiet --temp --name "$teacher" --set-param "headline.teacher=$teacher" headline
done
dvc metrics diff "$a" "$b" --all --targets metrics/student.json
dvc plots diff "$a" "$b" --targets data/headline/lengths.csv data/headline/loss.csv --out .dvc/tmp/compare
echo "more: open the plots above, or dvc exp show --drop '.*' --keep 'Experiment|.*student.json.*pass.*'"
echo "delete both: dvc exp remove $a $b"
