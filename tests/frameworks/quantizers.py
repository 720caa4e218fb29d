"""What docs/SCHEMES.md promises to store for one weight, by scheme: {what follows the module's name: bytes}.

The bytes of bitsandbytes' nf4 and int8-bnb and of optimum-quanto's qfloat8, qint8 and qint4 come from the frameworks
themselves; only groups of scale 0, of which quanto makes NaN or worse, are put right. nf4-dq and fp4 take from bitsandbytes
what is equal. The others are the formulas of docs/SCHEMES.md in torch; framework_codes.py has what their frameworks make.
"""

import json

import bitsandbytes.functional
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from optimum.quanto import AbsmaxOptimizer, MaxOptimizer, qfloat8_e4m3fn, quantize_weight
from optimum.quanto import qint4 as quanto_qint4
from optimum.quanto import qint8 as quanto_qint8

EPSILON = {torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10, torch.float32: 2.0**-23}
GROUP = 128
E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def raw(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def nibbles(codes, first_low):
    pairs = codes.reshape(-1, 2).to(torch.uint8)
    low, high = (pairs[:, 0], pairs[:, 1]) if first_low else (pairs[:, 1], pairs[:, 0])
    return low | (high << 4)


def cast(dtype):
    return lambda weight: {"weight": raw(weight.to(dtype))}


def by_channel(low, high, divisor, code_dtype):
    def quantizer(weight):
        scale = (weight.float().abs().amax(dim=1, keepdim=True) / divisor).to(weight.dtype)
        scale[scale == 0] = EPSILON[weight.dtype]
        quotient = torch.clamp(weight.float() / scale.float(), low, high)
        codes = (quotient.round() if code_dtype == torch.int8 else quotient).to(code_dtype)
        return {"weight": raw(codes), "weight_scale": raw(scale)}

    return quantizer


def packed(bits):
    def quantizer(weight):
        groups = weight.float().reshape(weight.shape[0], -1, GROUP)
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        scale = (groups.abs().amax(2) / (high + 0.5)).to(weight.dtype)
        scale[scale == 0] = EPSILON[weight.dtype]
        codes = torch.clamp(groups / scale.float().unsqueeze(2), low, high).round()
        words = pack_to_int32(codes.to(torch.int8).reshape(weight.shape), bits)
        return {"weight_packed": raw(words), "weight_scale": raw(scale), "weight_shape": raw(torch.tensor(weight.shape))}

    return quantizer


def e2m1_codes(x):
    """Round to nearest, ties to the even code; the sign of what is below 0."""
    magnitude = x.abs().clamp(max=6)
    step = torch.where(magnitude < 2, 0.5, torch.where(magnitude < 4, 1.0, 2.0))
    value = (magnitude / step).round() * step
    return torch.bucketize(value, E2M1) + 8 * (x < 0)


def mxfp4(weight):
    groups = weight.float().reshape(weight.shape[0], -1, 32)
    amax = groups.abs().amax(2)
    mantissa, exponent = torch.frexp(amax)  # amax = mantissa * 2^exponent, mantissa in [0.5, 1)
    power = exponent - 1 + (mantissa >= 0.875).int()
    code = torch.where(amax == 0, 0, (127 + power - 2).clamp(min=0))
    codes = e2m1_codes(groups * torch.exp2(127.0 - code.float()).unsqueeze(2))
    return {"weight_packed": raw(nibbles(codes, True)), "weight_scale": raw(code.to(torch.uint8))}


def nvfp4(weight):
    groups = weight.float().reshape(weight.shape[0], -1, 16)
    amax = groups.abs().amax()
    largest = torch.tensor(torch.finfo(torch.float32).max)
    glob = torch.ones(1) if amax == 0 else torch.minimum(2688.0 / amax, largest).reshape(1)
    local = (glob * (groups.abs().amax(2) / 6)).clamp(max=448).to(torch.float8_e4m3fn)
    local = torch.where(local.float() == 0, torch.tensor(0.125), local.float()).to(torch.float8_e4m3fn)
    codes = e2m1_codes(groups / (local.float() / glob).unsqueeze(2))
    return {"weight_packed": raw(nibbles(codes, True)), "weight_scale": raw(local), "weight_global_scale": raw(glob)}


def fp8_block(weight):
    rows, columns = weight.shape
    squares = weight.float().reshape(rows // 128, 128, columns // 128, 128)
    amax = squares.abs().amax((1, 3), keepdim=True)
    multiplier = torch.where(amax == 0, 1.0, (448 / amax).clamp(max=torch.finfo(torch.float32).max))
    codes = (squares * multiplier).clamp(-448, 448).to(torch.float8_e4m3fn)
    return {"weight": raw(codes), "weight_scale_inv": raw(1.0 / multiplier)}


def bnb_4bit_state(weight, quant_type):
    codes, state = bitsandbytes.functional.quantize_4bit(weight, blocksize=64, quant_type=quant_type)
    return codes, state.as_dict(packed=True)


def nf4(weight):
    codes, state = bnb_4bit_state(weight, "nf4")
    return {
        "weight": raw(codes),
        "weight.absmax": raw(state["absmax"]),
        "weight.quant_map": raw(state["quant_map"]),
        "weight.quant_state.bitsandbytes__nf4": raw(state["quant_state.bitsandbytes__nf4"]),
    }


def fp4(weight):
    state = bnb_4bit_state(weight, "fp4")[1]
    blocks = weight.float().reshape(-1, 64)
    x = blocks * (1.0 / blocks.abs().amax(1, keepdim=True).clamp(min=1e-38))
    thresholds = torch.tensor([0.00260417, 0.0859375, 0.20833333, 0.29166667, 0.4166667, 0.583333, 0.8333333])
    codes = torch.tensor([0, 1, 6, 7, 4, 5, 2, 3])[torch.bucketize(x.abs(), thresholds)] + 8 * (x < 0)
    return {
        "weight": raw(nibbles(codes, False)),
        "weight.absmax": raw(state["absmax"]),
        "weight.quant_map": raw(state["quant_map"]),
        "weight.quant_state.bitsandbytes__fp4": raw(state["quant_state.bitsandbytes__fp4"]),
    }


def nf4_dq(weight):
    codes, state = bnb_4bit_state(weight, "nf4")
    absmax = state["absmax"]
    offset = torch.tensor(absmax.double().sum().item() / absmax.numel()).float()
    x = absmax - offset
    blocks = torch.nn.functional.pad(x, (0, -x.numel() % 256)).reshape(-1, 256)
    nested = blocks.abs().amax(1)
    table = bitsandbytes.functional.create_dynamic_map()
    scaled = blocks * (1.0 / nested.clamp(min=1e-38)).unsqueeze(1)
    nested_codes = torch.bucketize(scaled, (table[:-1] + table[1:]) / 2).reshape(-1)[: x.numel()].to(torch.uint8)
    theirs = bitsandbytes.functional.quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=True)[1]
    known = json.loads(bytes(theirs.as_dict(packed=True)["quant_state.bitsandbytes__nf4"].tolist()))
    return {
        "weight": raw(codes),
        "weight.absmax": raw(nested_codes),
        "weight.nested_absmax": raw(nested),
        "weight.quant_map": raw(state["quant_map"]),
        "weight.nested_quant_map": raw(table),
        "weight.quant_state.bitsandbytes__nf4": json.dumps(known | {"nested_offset": offset.item()}).encode(),
    }


def int8_bnb(weight):
    codes, scales, _ = bitsandbytes.functional.int8_vectorwise_quant(weight.half())
    assert not (weight.float().abs() > 65504).any(), "the framework makes infinities of such rows"
    return {"weight": raw(codes), "SCB": raw(scales), "weight_format": b"\0"}


def quanto_scalars(weight):
    one = torch.ones((), dtype=weight.dtype)
    return {"input_scale": raw(one), "output_scale": raw(one)}


def quanto_by_channel(qtype):
    def quantizer(weight):
        scale = AbsmaxOptimizer()(weight, qtype, 0)
        codes = quantize_weight(weight, qtype, 0, scale, optimized=False)._data.view(torch.uint8).clone()
        codes[(scale == 0).reshape(-1)] = 0
        scale = torch.where(scale == 0, torch.ones_like(scale), scale)
        return {"weight._data": raw(codes), "weight._scale": raw(scale), **quanto_scalars(weight)}

    return quantizer


def qint4(weight):
    scale, shift = MaxOptimizer()(weight, quanto_qint4, 0, GROUP)
    theirs = quantize_weight(weight, quanto_qint4, 0, scale, shift, GROUP, optimized=False)
    codes = theirs._data.unpack().clone()
    codes[(scale == 0).reshape(-1)] = 0
    half = codes.shape[0] // 2
    low = (-shift).float() == 0
    return {
        "weight._data._data": raw(codes[:half] | (codes[half:] << 4)),
        "weight._scale": raw(torch.where(scale == 0, torch.ones_like(scale), scale)),
        "weight._shift": raw(torch.where(low, -torch.zeros_like(shift), shift)),
        **quanto_scalars(weight),
    }


CASTS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
QUANTIZERS = {
    **{scheme: cast(dtype) for scheme, dtype in CASTS.items()},
    "int8": by_channel(-128, 127, 127.5, torch.int8),
    "fp8": by_channel(-448, 448, 448, torch.float8_e4m3fn),
    "int4": packed(4),
    "w8a16": packed(8),
    "mxfp4": mxfp4,
    "nvfp4": nvfp4,
    "fp8-block": fp8_block,
    "nf4": nf4,
    "fp4": fp4,
    "nf4-dq": nf4_dq,
    "int8-bnb": int8_bnb,
    "qfloat8": quanto_by_channel(qfloat8_e4m3fn),
    "qint8": quanto_by_channel(quanto_qint8),
    "qint4": qint4,
}


def same(suffix, ours, theirs):
    """Whether two values of one suffix are equal. Texts whose length must be known before their content are padded."""
    if suffix.startswith("weight.quant_state"):
        return ours == theirs or (b"nested_offset" in ours and json.loads(ours) == json.loads(theirs))
    return ours == theirs
