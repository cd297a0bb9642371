"""The small world: queries, models and benchmarks that the project makes itself."""

from distillery.core import cpu_kernels

cpu_kernels.pin()  # here, because numpy reads it when a module imports it
