#!/usr/bin/env python3
"""Compares what the schemes store with the frameworks' own quantizers, byte for byte.

  compare_quant.py DUMP_QUANTIZED        (the test program of that name; see tests/quant/CMakeLists.txt)

Schemes of bitsandbytes (nf4, int8-bnb) and optimum-quanto (qfloat8, qint8, qint4) must equal the framework's own bytes
(except quanto's groups of scale 0, which it makes NaN or worse). Those of compressed-tensors, whose framework divides in
the weight's 16-bit type, must equal the formulas of docs/SCHEMES.md in torch and have the framework's scales; how many
codes differ from its own is printed. fp4 and nf4-dq must equal the formulas too, and bitsandbytes but for what
docs/SCHEMES.md says. Casts must equal torch's. Prints one line per case; the exit status is 1 where something differs.
"""

import json
import subprocess
import sys

import bitsandbytes.functional
import numpy
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.utils import calculate_qparams
from optimum.quanto import AbsmaxOptimizer, MaxOptimizer, qfloat8_e4m3fn, quantize_weight
from optimum.quanto import qint4 as quanto_qint4
from optimum.quanto import qint8 as quanto_qint8

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


def nibbles(codes, first_low):
    pairs = codes.reshape(-1, 2).to(torch.uint8)
    low, high = (pairs[:, 0], pairs[:, 1]) if first_low else (pairs[:, 1], pairs[:, 0])
    return low | (high << 4)


def differing(ours, theirs, what):
    return f"{int((ours != theirs).sum())} of {ours.numel()} {what} differ from the framework's"


def packed(bits, group):
    """compressed-tensors, groups of the row; also compared with its own quantizer."""

    def quantizer(weight, name):
        args = QuantizationArgs(num_bits=bits, type="int", symmetric=True, strategy="group", group_size=group)
        groups = weight.reshape(weight.shape[0], -1, group)
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        scale = (groups.float().abs().amax(2) / (high + 0.5)).to(weight.dtype)
        scale[scale == 0] = EPSILON[name]
        codes = torch.clamp(groups.float() / scale.float().unsqueeze(2), low, high).round()
        theirs_scale, zero = calculate_qparams(groups.amin(2), groups.amax(2), args)
        theirs = quantize(weight, theirs_scale, zero, args, dtype=torch.int8).reshape(groups.shape)
        words = pack_to_int32(codes.to(torch.int8).reshape(weight.shape), bits)
        note = differing(codes, theirs.float(), "codes") + f", {int((theirs_scale != scale).sum())} scales"
        return {
            "weight_packed": raw(words),
            "weight_scale": raw(scale),
            "weight_shape": raw(torch.tensor(weight.shape)),
        }, note

    return quantizer


E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def e2m1_codes(x):
    """Round to nearest, ties to the even code; the sign of what is below 0."""
    magnitude = x.abs().clamp(max=6)
    step = torch.where(magnitude < 2, 0.5, torch.where(magnitude < 4, 1.0, 2.0))
    value = (magnitude / step).round() * step
    return torch.bucketize(value, E2M1) + 8 * (x < 0)


def mxfp4(weight, _name):
    groups = weight.float().reshape(weight.shape[0], -1, 32)
    amax = groups.abs().amax(2)
    mantissa, exponent = torch.frexp(amax)  # amax = mantissa * 2^exponent, mantissa in [0.5, 1)
    power = exponent - 1 + (mantissa >= 0.875).int()
    code = torch.where(amax == 0, 0, (127 + power - 2).clamp(min=0))
    codes = e2m1_codes(groups * torch.exp2(127.0 - code.float()).unsqueeze(2))
    return {"weight_packed": raw(nibbles(codes, True)), "weight_scale": raw(code.to(torch.uint8))}, None


def nvfp4(weight, _name):
    groups = weight.float().reshape(weight.shape[0], -1, 16)
    amax = groups.abs().amax()
    largest = torch.tensor(torch.finfo(torch.float32).max)
    glob = torch.ones(1) if amax == 0 else torch.minimum(2688.0 / amax, largest).reshape(1)
    local = (glob * (groups.abs().amax(2) / 6)).clamp(max=448).to(torch.float8_e4m3fn)
    local = torch.where(local.float() == 0, torch.tensor(0.125), local.float()).to(torch.float8_e4m3fn)
    codes = e2m1_codes(groups / (local.float() / glob).unsqueeze(2))
    args = QuantizationArgs(num_bits=4, type="float", symmetric=True, strategy="tensor_group", group_size=16, scale_dtype=torch.float8_e4m3fn)
    own = weight.reshape(weight.shape[0], -1, 16)
    theirs, _ = calculate_qparams(own.amin(2), own.amax(2), args, global_scale=glob)
    note = differing(local.float(), theirs.float(), "scales, given the global one,")
    return {
        "weight_packed": raw(nibbles(codes, True)),
        "weight_scale": raw(local),
        "weight_global_scale": raw(glob),
    }, note


def bnb_4bit_state(weight, quant_type):
    codes, state = bitsandbytes.functional.quantize_4bit(weight, blocksize=64, quant_type=quant_type)
    return codes, state.as_dict(packed=True)


def fp4(weight, _name):
    theirs, packed_state = bnb_4bit_state(weight, "fp4")
    blocks = weight.float().reshape(-1, 64)
    x = blocks * (1.0 / blocks.abs().amax(1, keepdim=True).clamp(min=1e-38))
    thresholds = torch.tensor([0.00260417, 0.0859375, 0.20833333, 0.29166667, 0.4166667, 0.583333, 0.8333333])
    codes = torch.tensor([0, 1, 6, 7, 4, 5, 2, 3])[torch.bucketize(x.abs(), thresholds)] + 8 * (x < 0)
    ours = nibbles(codes, False)
    # The framework's CPU kernel rounds the signed value; most of what differs is the sign of a zero.
    split = lambda packed: torch.stack([packed.reshape(-1) >> 4, packed.reshape(-1) & 15], 1)
    a, b = split(ours), split(theirs)
    zero = (a != b) & (a % 8 == 0) & (b % 8 == 0)
    note = differing(a, b, "codes") + f", {int(zero.sum())} in the sign of a zero only"
    return {
        "weight": raw(ours),
        "weight.absmax": raw(packed_state["absmax"]),
        "weight.quant_map": raw(packed_state["quant_map"]),
        "weight.quant_state.bitsandbytes__fp4": raw(packed_state["quant_state.bitsandbytes__fp4"]),
    }, note


def nf4_dq(weight, _name):
    codes, state = bnb_4bit_state(weight, "nf4")
    absmax = state["absmax"]
    theirs_state = bitsandbytes.functional.quantize_4bit(
        weight, blocksize=64, quant_type="nf4", compress_statistics=True
    )[1]
    theirs = theirs_state.as_dict(packed=True)
    offset = torch.tensor(absmax.double().sum().item() / absmax.numel()).float()
    x = absmax - offset
    blocks = torch.nn.functional.pad(x, (0, -x.numel() % 256)).reshape(-1, 256)
    nested = blocks.abs().amax(1)
    table = bitsandbytes.functional.create_dynamic_map()
    scaled = blocks * (1.0 / nested.clamp(min=1e-38)).unsqueeze(1)
    nested_codes = torch.bucketize(scaled, (table[:-1] + table[1:]) / 2).reshape(-1)[: x.numel()].to(torch.uint8)
    known = json.loads(bytes(theirs["quant_state.bitsandbytes__nf4"].tolist()))
    note = (
        differing(nested_codes, theirs["absmax"], "absmax codes")
        + f", {int((nested != theirs['nested_absmax']).sum())} nested absmaxes"
        + f", offset {offset.item()} for {known['nested_offset']}"
    )
    text = json.dumps(known | {"nested_offset": offset.item()})
    return {
        "weight": raw(codes),
        "weight.absmax": raw(nested_codes),
        "weight.nested_absmax": raw(nested),
        "weight.quant_map": raw(state["quant_map"]),
        "weight.nested_quant_map": raw(table),
        "weight.quant_state.bitsandbytes__nf4": text.encode(),
    }, note


def int8_bnb(weight, _name):
    codes, scales, _ = bitsandbytes.functional.int8_vectorwise_quant(weight.half())
    overflown = (weight.float().abs() > 65504).any(1)
    assert not overflown.any(), "the framework makes infinities of such rows"
    return {"weight": raw(codes), "SCB": raw(scales), "weight_format": b"\0"}, None


def fp8_block(weight, _name):
    rows, columns = weight.shape
    squares = weight.float().reshape(rows // 128, 128, columns // 128, 128)
    amax = squares.abs().amax((1, 3), keepdim=True)
    multiplier = torch.where(amax == 0, 1.0, (448 / amax).clamp(max=torch.finfo(torch.float32).max))
    codes = (squares * multiplier).clamp(-448, 448).to(torch.float8_e4m3fn)
    return {"weight": raw(codes), "weight_scale_inv": raw(1.0 / multiplier)}, None


def qint8(weight, _name):
    scale = AbsmaxOptimizer()(weight, quanto_qint8, 0)
    codes = quantize_weight(weight, quanto_qint8, 0, scale, optimized=False)._data.clone()
    zero = (scale == 0).reshape(-1)
    codes[zero] = 0
    one = torch.ones((), dtype=weight.dtype)
    return {
        "weight._data": raw(codes),
        "weight._scale": raw(torch.where(scale == 0, torch.ones_like(scale), scale)),
        "input_scale": raw(one),
        "output_scale": raw(one),
    }, f"{int(zero.sum())} rows of scale 0 made scale 1, codes 0"


def qint4(weight, _name):
    scale, shift = MaxOptimizer()(weight, quanto_qint4, 0, 128)
    theirs = quantize_weight(weight, quanto_qint4, 0, scale, shift, 128, optimized=False)
    codes = theirs._data.unpack().clone()
    zero = (scale == 0).reshape(-1)
    codes[zero] = 0
    half = codes.shape[0] // 2
    one = torch.ones((), dtype=weight.dtype)
    low = (-shift).float() == 0
    return {
        "weight._data._data": raw(codes[:half] | (codes[half:] << 4)),
        "weight._scale": raw(torch.where(scale == 0, torch.ones_like(scale), scale)),
        "weight._shift": raw(torch.where(low, -torch.zeros_like(shift), shift)),
        "input_scale": raw(one),
        "output_scale": raw(one),
    }, f"{int(zero.sum())} groups of scale 0 made scale 1, codes 0"


def cast(dtype):
    return lambda weight, _name: ({"weight": raw(weight.to(dtype))}, None)


# What a scheme's framework cannot do, so that there is nothing to compare with.
FINITE_IN_FP16 = {"int8-bnb"}
RANGE_FITS = {"qint4"}


def usable(scheme, weight):
    if scheme in FINITE_IN_FP16:
        return weight.float().abs().max() <= 65504
    if scheme in RANGE_FITS:
        groups = weight.reshape(-1, 128)
        return bool((groups.amax(1) - groups.amin(1)).isfinite().all())
    return True


def compare(program):
    quantizers = {"nf4": nf4, "qfloat8": qfloat8, "int8": int8, "fp8": fp8}
    quantizers |= {"int4": packed(4, 128), "w8a16": packed(8, 128), "mxfp4": mxfp4, "nvfp4": nvfp4}
    quantizers |= {"fp4": fp4, "nf4-dq": nf4_dq, "int8-bnb": int8_bnb, "fp8-block": fp8_block}
    quantizers |= {"qint8": qint8, "qint4": qint4}
    quantizers |= {"bf16": cast(torch.bfloat16), "fp16": cast(torch.float16), "fp32": cast(torch.float32)}
    failures = 0
    for scheme, quantizer in quantizers.items():
        for name, dtype in DTYPES.items():
            for kind, weight in weights(dtype):
                if weight.shape[0] < 128 and scheme == "fp8-block" or not usable(scheme, weight):
                    continue
                ours = {suffix: data for suffix, (_, _, data) in stored(program, scheme, name, weight).items()}
                theirs, note = quantizer(weight, name)
                differences = []
                if ours.keys() != theirs.keys():
                    differences.append(f"tensors {sorted(ours)} instead of {sorted(theirs)}")
                for suffix in ours.keys() & theirs.keys():
                    a = numpy.frombuffer(ours[suffix], numpy.uint8)
                    b = numpy.frombuffer(theirs[suffix], numpy.uint8)
                    if suffix.startswith("weight.quant_state"):
                        same = json.loads(ours[suffix]) == json.loads(theirs[suffix])
                        same = same and (scheme == "nf4-dq" or ours[suffix] == theirs[suffix])
                    else:
                        same = a.shape == b.shape and bool((a == b).all())
                    if not same:
                        count = int((a != b).sum()) if a.shape == b.shape else "all"
                        differences.append(f"{suffix}: {count} of {b.size} bytes")
                failures += bool(differences)
                print(f"{scheme:9} {name:4} {kind:18} {'; '.join(differences) or 'equal'}{f' ({note})' if note else ''}")
    return failures


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.set_num_threads(2)
    failed = compare(sys.argv[1])
    print(f"{failed} cases differ" if failed else "all equal")
    sys.exit(failed != 0)
