"""What a model computes does not depend on how many threads do: workers have fewer than a single process.

On some processors that is not so of products narrower than 128 columns (layers of published models are wider), nor with
three threads or more than eight; docs/architecture.md says what to do.
"""

from __future__ import annotations

import os
import subprocess
import sys

PRODUCTS = """
import tiir.models
import torch
from torch.nn import functional as F

sides = [(torch.randn(m, k), torch.randn(n, k), torch.randn(n))
         for m in (1, 2, 5, 8, 14, 50, 197, 300) for k in (128, 768) for n in (128, 384, 512, 768, 3072)]
heads, pictures, kernels = torch.randn(4, 8, 50, 64), torch.randn(2, 3, 64, 64), torch.randn(96, 3, 16, 16)
found = set()
for threads in (1, 2, 4, 8):
    torch.set_num_threads(threads)
    results = [F.linear(*pair) for pair in sides]
    results += [F.scaled_dot_product_attention(heads, heads, heads), F.conv2d(pictures, kernels, stride=16)]
    found.add(b"".join(result.numpy().tobytes() for result in results))
print(len(found))
"""


def test_matrix_products_have_the_same_bytes_with_any_number_of_threads() -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MKL", "OMP"))}
    done = subprocess.run(
        [sys.executable, "-c", PRODUCTS], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1"
