"""Disables network access before any library is imported."""

import os

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", VLLM_NO_USAGE_STATS="1", DVC_NO_ANALYTICS="1")
