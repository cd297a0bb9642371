"""The same floating-point results on every x86-64 CPU that has AVX2.

Libraries choose their kernels by the CPU's type and vendor. The kernels add up in different orders, so the last bits of
results differ, and training and sampling amplify that: the same study gave other students on another CPU. Here every
library is held to a choice that all CPUs share. The price is speed on the CPU; results on GPUs are not affected.

``sqrt`` and ``atan`` of a tensor still differ (MKL's vector library); so optimizers are fused, which have a square root of
their own, and gradients are not clipped by their norm.
"""

import os

ENVIRONMENT = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels
    "MKL_CBWR": "COMPATIBLE",  # MKL: "AVX2" still chooses by vendor for products with a vector and for exp
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",  # numpy's matrix products
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",  # torch: a sum over several threads depends on their number, and busy processes wait for theirs
    "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR",  # its exp and log
}


def pin() -> None:
    """Pins the kernels of this process and its children; call it before numpy is imported and torch computes anything.

    Variables that are already set are left alone: ``MKL_CBWR=AUTO`` and so on give up the same results for speed.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
