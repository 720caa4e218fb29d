#!/usr/bin/env python3
"""Compares what the schemes store with the frameworks' own quantizers, byte for byte.

  compare_quant.py DUMP_QUANTIZED        (the test program of that name; see tests/quant/CMakeLists.txt)

nf4 and qfloat8 must equal bitsandbytes and optimum-quanto (except quanto's rows of scale 0, which it makes NaN),
int8 and fp8 must equal the formulas of docs/SCHEMES.md in torch, and have compressed-tensors' own scales; casts must equal
torch's. Prints one line per case; the exit status is 1 where something differs.
"""

import json
import subprocess
import sys

import bitsandbytes.functional
import numpy
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.utils import calculate_qparams
from optimum.quanto import AbsmaxOptimizer, qfloat8_e4m3fn, quantize_weight

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
EPSILON = {"BF16": 2.0**-7, "F16": 2.0**-10, "F32": 2.0**-23}


def raw(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


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


def nf4(weight, _name):
    codes, state = bitsandbytes.functional.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    packed = state.as_dict(packed=True)
    return {
        "weight": raw(codes),
        "weight.absmax": raw(packed["absmax"]),
        "weight.quant_map": raw(packed["quant_map"]),
        "weight.quant_state.bitsandbytes__nf4": raw(packed["quant_state.bitsandbytes__nf4"]),
    }, None


def qfloat8(weight, _name):
    scale = AbsmaxOptimizer()(weight, qfloat8_e4m3fn, 0)
    codes = quantize_weight(weight, qfloat8_e4m3fn, 0, scale, optimized=False)._data
    zero = (scale == 0).reshape(-1)
    codes = codes.view(torch.uint8).clone()
    codes[zero] = 0
    one = torch.ones((), dtype=weight.dtype)
    return {
        "weight._data": raw(codes),
        "weight._scale": raw(torch.where(scale == 0, torch.ones_like(scale), scale)),
        "input_scale": raw(one),
        "output_scale": raw(one),
    }, f"{int(zero.sum())} rows of scale 0 made scale 1, codes 0"


def compressed(weight, name, args, low, high, divisor, code_dtype):
    amax = weight.float().abs().amax(dim=1, keepdim=True)
    scale = (amax / divisor).to(weight.dtype)
    scale[scale == 0] = EPSILON[name]
    theirs, _ = calculate_qparams(weight.amin(1, keepdim=True), weight.amax(1, keepdim=True), args)
    note = f"{int((theirs != scale).sum())} scales differ from compressed-tensors'"
    quotient = torch.clamp(weight.float() / scale.float(), low, high)
    codes = (quotient.round() if code_dtype == torch.int8 else quotient).to(code_dtype)
    return {"weight": raw(codes), "weight_scale": raw(scale)}, note


def int8(weight, name):
    args = QuantizationArgs(num_bits=8, type="int", symmetric=True, strategy="channel")
    return compressed(weight, name, args, -128, 127, 127.5, torch.int8)


def fp8(weight, name):
    args = QuantizationArgs(num_bits=8, type="float", symmetric=True, strategy="channel")
    return compressed(weight, name, args, -448, 448, 448, torch.float8_e4m3fn)


def cast(dtype):
    return lambda weight, _name: ({"weight": raw(weight.to(dtype))}, None)


def compare(program):
    quantizers = {"nf4": nf4, "qfloat8": qfloat8, "int8": int8, "fp8": fp8}
    quantizers |= {"bf16": cast(torch.bfloat16), "fp16": cast(torch.float16), "fp32": cast(torch.float32)}
    failures = 0
    for scheme, quantizer in quantizers.items():
        for name, dtype in DTYPES.items():
            for kind, weight in weights(dtype):
                ours = {suffix: data for suffix, (_, _, data) in stored(program, scheme, name, weight).items()}
                theirs, note = quantizer(weight, name)
                differences = []
                if ours.keys() != theirs.keys():
                    differences.append(f"tensors {sorted(ours)} instead of {sorted(theirs)}")
                for suffix in ours.keys() & theirs.keys():
                    a = numpy.frombuffer(ours[suffix], numpy.uint8)
                    b = numpy.frombuffer(theirs[suffix], numpy.uint8)
                    if suffix.startswith("weight.quant_state"):
                        same = json.loads(ours[suffix]) == json.loads(theirs[suffix]) and ours[suffix] == theirs[suffix]
                    else:
                        same = a.shape == b.shape and bool((a == b).all())
                    if not same:
                        count = int((a != b).sum()) if a.shape == b.shape else "all"
                        differences.append(f"{suffix}: {count} of {b.size} bytes")
                failures += bool(differences)
                print(f"{scheme:8} {name:4} {kind:18} {'; '.join(differences) or 'equal'}{f' ({note})' if note else ''}")
    return failures


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.set_num_threads(2)
    failed = compare(sys.argv[1])
    print(f"{failed} cases differ" if failed else "all equal")
    sys.exit(failed != 0)
