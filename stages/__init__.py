"""The stages of the pipeline, one file each."""

from distillery.core import cpu_kernels

cpu_kernels.pin()  # here, because numpy reads it when a stage imports it
