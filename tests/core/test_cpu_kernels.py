"""Results must not depend on the CPU: the expected hashes were the same on AMD Zen 5 and emulated Zen 3 and Intel Haswell."""

import os
import subprocess
import sys

import pytest

from distillery.core.cpu_kernels import ENVIRONMENT

pytestmark = pytest.mark.slow

WEIGHTS = "2a4604c9ba277e9fec6bb32d2a99725b"
PROGRAM = """
import stages  # pins the kernels

import hashlib
import torch
from distillery.core.cpu_kernels import multiply_by_openblas

multiply_by_openblas()

generator = torch.Generator().manual_seed(0)


def draw(*shape):
    return torch.randint(-1000, 1000, shape, generator=generator).float() / 997


def train(threads):
    torch.set_num_threads(threads)
    generator.manual_seed(0)
    layers = torch.nn.Linear(64, 96), torch.nn.Linear(96, 50)
    parameters = [each for layer in layers for each in layer.parameters()]
    with torch.no_grad():
        for each in parameters:
            each.copy_(draw(*each.shape))
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, fused=True)
    for _ in range(3):
        states = torch.nn.functional.silu(layers[0](draw(2, 4, 40, 64)))
        states = torch.nn.functional.scaled_dot_product_attention(states, states, states, is_causal=True)
        logits = layers[1](states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + 1e-6)).reshape(-1, 50)
        torch.nn.functional.cross_entropy(logits, torch.arange(320) % 50).backward()
        optimizer.step()
        optimizer.zero_grad()
    return hashlib.md5(b"".join(each.detach().numpy().tobytes() for each in parameters)).hexdigest()


print(train(1), train(2), torch.backends.cpu.get_cpu_capability())
"""


def run(program: str = PROGRAM, **environment: str) -> list[str]:
    clean = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
    done = subprocess.run([sys.executable, "-c", program], env=clean | environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_training_gives_the_same_weights_on_every_cpu():
    assert run() == [WEIGHTS, WEIGHTS, "AVX2"]


def test_variables_already_set_are_kept():
    assert run(ATEN_CPU_CAPABILITY="default")[2] == "DEFAULT"


def test_numpy_avoids_kernels_that_some_cpus_lack():
    program = "import stages; from numpy._core._multiarray_umath import __cpu_features__ as f; print(f['AVX512F'])"
    assert run(program) == ["False"]


PRODUCTS = """
import stages
import torch
from distillery.core.cpu_kernels import multiply_by_openblas

a, b = torch.randn(50, 7, 64, requires_grad=True), torch.nn.Linear(64, 32)


def passes():
    b(a).pow(2).sum().backward()
    found = [b(a).detach(), a.grad.clone(), b.weight.grad.clone(), b.bias.grad.clone()]
    a.grad = b.weight.grad = b.bias.grad = None
    return found


before, library = passes(), multiply_by_openblas()
print(all(torch.allclose(one, other, atol=1e-4) for one, other in zip(before, passes(), strict=True)))
print(library is multiply_by_openblas(), library is not None)
ones = torch.ones(2, 3)
print(torch.addmm(torch.full((2,), 5.0), ones, ones.T, beta=2, alpha=3).tolist())
print(torch.addmm(torch.full((2,), float("nan")), ones, ones.T, beta=0).tolist())
print(torch.mm(ones.bfloat16(), ones.T.bfloat16()).dtype, (ones.long() @ ones.T.long()).tolist())
print(torch.mm(torch.ones(0, 3), ones.T).shape, torch.mm(torch.ones(2, 0), torch.ones(0, 2)).tolist())
"""


def test_products_by_openblas_are_torchs_own():
    assert (
        run(PRODUCTS)
        == (
            "True True True [[19.0, 19.0], [19.0, 19.0]] [[3.0, 3.0], [3.0, 3.0]] torch.bfloat16 [[3, 3], [3, 3]] "
            "torch.Size([0, 2]) [[0.0, 0.0], [0.0, 0.0]]"
        ).split()
    )


def test_who_gives_up_the_same_results_keeps_mkl():
    program = "import stages; from distillery.core.cpu_kernels import multiply_by_openblas as f; print(f())"
    assert run(program, MKL_CBWR="AUTO") == ["None"]
