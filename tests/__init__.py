"""Disables network access before any library is imported; a process that a test starts may be given another choice."""

import os

for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "VLLM_NO_USAGE_STATS", "DVC_NO_ANALYTICS"):
    os.environ.setdefault(name, "1")
