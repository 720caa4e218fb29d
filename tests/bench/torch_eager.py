#!/usr/bin/env python3
"""What quantizing costs in eager PyTorch, for comparison with qcache_bench_kernels and qcache_bench_factors.

Same work as there: bf16 source, 512 KiB at a time (64 rows of 4096), one thread, codes and scales into new tensors.
Prints GB of source per second of CPU time (10^9 bytes), the median of many runs.
"""

import statistics
import time

import torch

SOURCE = torch.randn(64, 4096, generator=torch.Generator().manual_seed(1)).mul(0.02).to(torch.bfloat16)


def int8_fp32(weight):
    """docs/SCHEMES.md: fp32 arithmetic."""
    wide = weight.float()
    scale = (wide.abs().amax(1, keepdim=True) / 127.5).to(weight.dtype)
    scale = torch.where(scale == 0, 2.0**-7, scale)
    return torch.clamp(wide / scale.float(), -128, 127).round().to(torch.int8), scale


def int8_bf16(weight):
    """As compressed-tensors computes it."""
    scale = weight.abs().amax(1, keepdim=True) / 127.5
    scale = torch.where(scale == 0, 2.0**-7, scale)
    return torch.clamp(weight / scale, -128, 127).round().to(torch.int8), scale


def fp8_fp32(weight):
    wide = weight.float()
    scale = (wide.abs().amax(1, keepdim=True) / 448).to(weight.dtype)
    scale = torch.where(scale == 0, 2.0**-7, scale)
    return torch.clamp(wide / scale.float(), -448, 448).to(torch.float8_e4m3fn), scale


def qfloat8(weight):
    """As optimum-quanto computes it."""
    scale = weight.abs().amax(1, keepdim=True) / 448
    return torch.clamp(weight / scale, -448, 448).to(torch.float8_e4m3fn), scale


NF4_BOUNDS = torch.tensor(
    [-0.8480964004993439, -0.6106329262256622, -0.4599952697753906, -0.33967943489551544, -0.23460740596055984,
     -0.13791173323988914, -0.045525018125772476, 0.03979014977812767, 0.1202552504837513, 0.2035212516784668,
     0.2920137718319893, 0.3893125355243683, 0.5016634166240692, 0.6427869200706482, 0.8614784181118011]
)


def nf4(weight):
    """As bitsandbytes' CPU backend computes it."""
    blocks = weight.float().reshape(-1, 64)
    absmax = blocks.abs().amax(1)
    scaled = (blocks * (1.0 / absmax.clamp(min=1e-38))[:, None]).clamp(-1, 1).reshape(-1)
    codes = torch.bucketize(scaled, NF4_BOUNDS, out_int32=True).to(torch.uint8)
    return (codes[::2] << 4) | codes[1::2], absmax


CASES = {
    "copy": lambda weight: weight.clone(),
    "fp16": lambda weight: weight.to(torch.float16),
    "fp32": lambda weight: weight.to(torch.float32),
    "int8 (fp32 arithmetic)": int8_fp32,
    "int8 (bf16 arithmetic)": int8_bf16,
    "fp8": fp8_fp32,
    "nf4": nf4,
    "qfloat8": qfloat8,
}


def low_rank():
    """Factors as PyTorch's own randomized SVD finds them, for qcache_bench_factors."""
    residual = torch.randn(4096, 4096, generator=torch.Generator().manual_seed(1)).mul(0.002)
    for rank in (16, 64, 128):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            torch.svd_lowrank(residual, q=rank + 10, niter=2)
            times.append(time.perf_counter() - start)
        print(f"svd_lowrank, rank {rank:4}    {1e3 * statistics.median(times):7.0f} ms")


def main():
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread")
    for name, function in CASES.items():
        times = []
        stop = time.perf_counter() + 2
        while time.perf_counter() < stop or len(times) < 20:
            start = time.thread_time()
            function(SOURCE)
            times.append(time.thread_time() - start)
        print(f"{name:24} {SOURCE.nbytes / statistics.median(times) / 1e9:7.3f} GB/s")
    low_rank()


if __name__ == "__main__":
    main()
