"""The stages of the pipeline, one file each."""

import os

from distillery.core import cpu_kernels

cpu_kernels.pin()  # here, because numpy reads it when a stage imports it
# transformers would have the hub convert a model without safetensors, and load that conversion in place of what is pinned
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
