"""score: the metrics of an arm's students, or of the base, from their samples (`evaluation.metrics` defines them)."""

from distillery.core.errors import DataError
from distillery.core.progress import log
from distillery.core.stage import record_metrics, run_stage
from distillery.core.tables import read_table
from distillery.evaluation.benchmarks import enabled_benchmarks
from distillery.evaluation.metrics import grouped, score_over_seeds


def main(name: str) -> None:
    with record_metrics(f"metrics/students/{name}.json") as (metrics, _):
        samples = read_table(f"data/samples/{name}").to_pylist()
        order = enabled_benchmarks()
        by_benchmark = grouped(samples, "benchmark")
        if missing := [benchmark for benchmark in order if benchmark not in by_benchmark]:
            raise DataError(f"data/samples/{name}: no samples of {missing[0]}; run `dvc repro`")
        metrics.update({benchmark: score_over_seeds(by_benchmark[benchmark]) for benchmark in order})
    log(f"score@{name}", ", ".join(f"{each} {metrics[each]['pass@1']:.1f}" for each in order))


if __name__ == "__main__":
    run_stage(main)
