#!/usr/bin/env python3
"""Compares what the schemes store with the frameworks' own quantizers.

  compare_quant.py DUMP_QUANTIZED        (the test program of that name; see tests/quant/CMakeLists.txt)

Every byte must be the one that quantizers.py expects: the framework's own where docs/SCHEMES.md claims that, else that of its
formulas. Where it claims less, codes and scales must also be near those of the frameworks (framework_codes.py): within one step
for well-behaved weights. How many differ, and by how much, is printed for all. Prints one line per case; the exit status is 1
where something differs that may not.
"""

import subprocess
import sys

import numpy
import torch

from framework_codes import FRAMEWORKS, stored_places
from quantizers import QUANTIZERS, raw, same

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def stored(program, scheme, name, weight):
    """{suffix of the tensor's name: (dtype, shape, bytes)}"""
    out = subprocess.run(
        [program, scheme, name, *map(str, weight.shape)], input=raw(weight), stdout=subprocess.PIPE, check=True
    ).stdout
    header, data = out.split(b"\n\n", 1)
    tensors = {}
    for line in header.decode().split("\n"):
        full_name, dtype, shape, size = line.split(" ")
        suffix = full_name.removeprefix("layers.0.q_proj.")
        tensors[suffix] = (dtype, [int(n) for n in shape.split(",") if n], data[: int(size)])
        data = data[int(size) :]
    assert not data
    return tensors


def weights(dtype):
    """Names and matrices: well-behaved ones, and every kind of finite row that is not."""
    generator = torch.Generator().manual_seed(3)
    normal = torch.randn(512, 1024, generator=generator) * 0.02
    yield "normal", normal.to(dtype)
    hard = normal.clone()
    hard[0] = 0
    hard[1, 5] = 300.0
    hard[2] *= 1e-38
    hard[3] *= 1e-43
    hard[4] = -0.0
    hard[5] = 0.375
    hard[6] *= 1e-3
    hard[7] = torch.arange(1024) / 8 - 64
    hard[8] *= 1e-6
    hard[9, ::2] = 0
    yield "hard", hard.to(dtype)
    bits = torch.randint(-(2**31), 2**31 - 1, (256, 1024), generator=generator, dtype=torch.int64)
    if dtype == torch.float32:
        any_finite = bits.to(torch.int32).view(torch.float32)
    else:
        any_finite = (bits & 0xFFFF).to(torch.uint16).view(dtype)
    yield "any finite bits", torch.where(any_finite.isfinite(), any_finite, torch.ones_like(any_finite))
    if dtype != torch.float32:
        every = torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(dtype).reshape(64, 1024)
        yield "every finite value", torch.where(every.isfinite(), every, torch.ones_like(every))


# What a scheme's framework cannot do, so that there is nothing to compare with.
FINITE_IN_FP16 = {"int8-bnb"}
RANGE_FITS = {"qint4"}


def usable(scheme, weight):
    if scheme in FINITE_IN_FP16:
        return weight.float().abs().max() <= 65504
    if scheme in RANGE_FITS:
        groups = weight.reshape(-1, 128)
        return bool((groups.amax(1) - groups.amin(1)).isfinite().all())
    return weight.shape[0] >= 128 or scheme != "fp8-block"


def wrong_bytes(ours, expected):
    if ours.keys() != expected.keys():
        return [f"tensors {sorted(ours)} instead of {sorted(expected)}"]
    wrong = []
    for suffix, data in ours.items():
        if not same(suffix, data, expected[suffix]):
            a, b = numpy.frombuffer(data, numpy.uint8), numpy.frombuffer(expected[suffix], numpy.uint8)
            wrong.append(f"{suffix}: {int((a != b).sum()) if a.shape == b.shape else 'all'} of {b.size} bytes")
    return wrong


def allowed_steps(scheme, framework, what, kind, dtype):
    """How far a code or scale may be from a framework's; nothing where the framework is no measure, as torchao for weights that
    are almost zero."""
    robust = framework == "transformers" or framework == "compressed-tensors" and scheme in ("int8", "fp8", "int4", "w8a16")
    if kind != "normal" and not robust:
        return None
    if framework == "transformers" or framework == "compressed-tensors" and dtype == torch.float32:
        return 0
    if what == "global scale":
        return {torch.bfloat16: 2**16, torch.float16: 2**13}[dtype]  # one step of the type that it is computed in
    if scheme == "nf4-dq":
        return 2  # bitsandbytes' search misses the nearest
    return 1 if what == "codes" or scheme == "nvfp4" else 0


def distances(scheme, ours, weight):
    """(framework, what, values that differ, values, the largest distance in steps)."""
    if scheme not in FRAMEWORKS:
        return
    places = stored_places(scheme, ours, weight.dtype)
    for framework, quantizer in FRAMEWORKS[scheme].items():
        for what, theirs in quantizer(weight).items():
            distance = (places[what] - theirs).abs()
            yield framework, what, int((distance != 0).sum()), distance.numel(), int(distance.max())


def compare(program):
    failures = 0
    for scheme, quantizer in QUANTIZERS.items():
        for name, dtype in DTYPES.items():
            for kind, weight in weights(dtype):
                if not usable(scheme, weight):
                    continue
                ours = {suffix: data for suffix, (_, _, data) in stored(program, scheme, name, weight).items()}
                problems, notes = wrong_bytes(ours, quantizer(weight)), []
                for framework, what, count, total, steps in distances(scheme, ours, weight):
                    differ = f"{count} of {total} {what} differ, by up to {steps}"
                    note = f"{framework}: {differ if count else f'same {what}'}"
                    allowed = allowed_steps(scheme, framework, what, kind, dtype)
                    (problems if allowed is not None and steps > allowed else notes).append(note)
                note = f" ({'; '.join(notes)})" if notes else ""
                print(f"{scheme:9} {name:4} {kind:18} {'; '.join(problems) or 'as documented'}{note}", flush=True)
                failures += bool(problems)
    return failures


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.set_num_threads(2)
    failed = compare(sys.argv[1])
    print(f"{failed} cases differ" if failed else "all as documented")
    sys.exit(failed != 0)
