"""Reasoning distillation: the library behind the stages of the pipeline. `docs/architecture.md` draws its packages."""
