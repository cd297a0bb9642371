"""The same floating-point results on every x86-64 CPU that has AVX2.

Libraries choose their kernels by the CPU's type and vendor. The kernels add up in different orders, so the last bits of
results differ, and training and sampling amplify that: the same study gave other students on another CPU. Here every
library is held to a choice that all CPUs share. The price is speed on the CPU; results on GPUs are not affected.

MKL's common choice multiplies matrices at a third of the speed that AVX2 allows; so torch's products on the CPU are computed by
numpy's OpenBLAS, whose kernels for Haswell run everywhere.

``sqrt`` and ``atan`` of a tensor still differ (MKL's vector library); so optimizers are fused, which have a square root of
their own, and gradients are not clipped by their norm.
"""

import os
import warnings
from functools import cache
from typing import Any

COMMON = "COMPATIBLE"

ENVIRONMENT = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels
    "MKL_CBWR": COMMON,  # MKL: "AVX2" still chooses by vendor for products with a vector and for exp
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


def mm(a: Any, b: Any) -> Any:
    """The product of matrices on the CPU: by numpy, or by torch where numpy may lack the type."""
    import numpy as np
    import torch

    a, b = a.detach(), b.detach()
    if a.dtype not in (torch.float32, torch.float64):
        return torch.mm(a, b, out=a.new_empty(a.shape[0], b.shape[1]))
    return torch.from_numpy(np.matmul(a.numpy(), b.numpy()))


def addmm(bias: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """``beta * bias + alpha * a @ b`` on the CPU; without ``beta``, whatever stands in ``bias``."""
    product = mm(a, b)
    scaled = product if alpha == 1 else product.mul_(alpha)
    return scaled.add_(bias.detach(), alpha=beta) if beta else scaled


@cache
def multiply_by_openblas() -> Any:
    """Lets numpy compute torch's products on the CPU from now on, unless ``MKL_CBWR`` gives up the same results.

    Call it before a model computes. Returns torch's registration, which must live as long.
    """
    from torch.library import Library

    if os.environ.get("MKL_CBWR") != COMMON:
        return None
    library = Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that torch's own are replaced
        library.impl("mm", mm, "CPU")
        library.impl("addmm", addmm, "CPU")
    return library
