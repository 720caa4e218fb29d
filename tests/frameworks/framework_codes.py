"""What the frameworks themselves make of a weight, where docs/SCHEMES.md claims no identity of all bytes.

Codes and scales are compared as places in the order of all their values: "one step" is the next value, and both zeros are one.
"""

import json
import types

import bitsandbytes.functional
import torch
from compressed_tensors.compressors.mxfp4.base import MXFP4PackedCompressor
from compressed_tensors.compressors.nvfp4.base import NVFP4PackedCompressor
from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from torchao.prototype.mx_formats.mx_tensor import ScaleCalculationMode, to_mx
from torchao.prototype.mx_formats.nvfp4_tensor import nvfp4_quantize, per_tensor_amax_to_scale
from torchao.quantization.quant_primitives import (MappingType, _choose_scale_float8, _quantize_affine_float8,
                                                   choose_qparams_affine, quantize_affine)
from transformers.integrations.finegrained_fp8 import Fp8Quantize

from quantizers import GROUP, bnb_4bit_state, raw

FP4_ORDER = torch.tensor([0, 1, 6, 7, 4, 5, 2, 3])  # the place of each of bitsandbytes' codes by size
BITS = {"int4": 4, "w8a16": 8}


def from_bytes(data, dtype=torch.uint8):
    return torch.frombuffer(bytearray(data), dtype=dtype)


def signed(magnitude, negative):
    return torch.where(negative, -magnitude, magnitude)


def float_places(tensor):
    """Of any floats, float8 too, by their bits."""
    bits = tensor.contiguous().view({1: torch.uint8, 2: torch.int16, 4: torch.int32}[tensor.itemsize]).long().flatten()
    top = 1 << (8 * tensor.itemsize - 1)
    bits = bits & (2 * top - 1)
    return signed(bits & (top - 1), (bits & top) != 0)


def nibble_places(data, order=torch.arange(8)):
    codes = torch.stack([from_bytes(data) & 15, from_bytes(data) >> 4], 1).long()
    return signed(order[codes & 7], codes >= 8).flatten()


def stored_places(scheme, stored, dtype):
    """Of our codes and scales. `stored`: bytes by suffix; `dtype`: the weight's."""
    codes, scales = stored.get("weight", stored.get("weight_packed")), stored.get("weight_scale")
    if scheme == "int8":
        return {"codes": from_bytes(codes, torch.int8).long(), "scales": float_places(from_bytes(scales, dtype))}
    if scheme == "fp8":
        return {"codes": float_places(from_bytes(codes)), "scales": float_places(from_bytes(scales, dtype))}
    if scheme in BITS:
        rows, columns = from_bytes(stored["weight_shape"], torch.int64).tolist()
        words = from_bytes(codes, torch.int32).reshape(rows, -1)
        return {"codes": unpack_from_int32(words, BITS[scheme], torch.Size([rows, columns])).long().flatten(),
                "scales": float_places(from_bytes(scales, dtype))}
    if scheme == "mxfp4":
        return {"codes": nibble_places(codes), "scales": from_bytes(scales).long()}
    if scheme == "nvfp4":
        return {"codes": nibble_places(codes), "scales": float_places(from_bytes(scales)),
                "global scale": float_places(from_bytes(stored["weight_global_scale"], torch.float32))}
    if scheme == "fp8-block":
        return {"codes": float_places(from_bytes(codes)),
                "scales": float_places(from_bytes(stored["weight_scale_inv"], torch.float32))}
    if scheme == "fp4":
        return {"codes": nibble_places(codes, FP4_ORDER)}
    state = json.loads(stored["weight.quant_state.bitsandbytes__nf4"])
    return {"scales": from_bytes(stored["weight.absmax"]).long(),
            "nested scales": float_places(from_bytes(stored["weight.nested_absmax"], torch.float32)),
            "offset": float_places(torch.tensor([state["nested_offset"]]))}


def arguments(bits, kind, group=None, **more):
    strategy = "channel" if group is None else "group"
    return QuantizationArgs(num_bits=bits, type=kind, symmetric=True, **{"strategy": strategy, "group_size": group, **more})


def compressed_tensors_integers(args):
    def places(weight):
        groups = weight.reshape(weight.shape[0], -1, args.group_size or weight.shape[1])
        scale, zero = calculate_qparams(groups.amin(2), groups.amax(2), args)
        code_dtype = torch.int8 if args.type == "int" else torch.float8_e4m3fn
        codes = quantize(weight, scale, zero, args, dtype=code_dtype)
        return {"codes": codes.long().flatten() if args.type == "int" else float_places(codes), "scales": float_places(scale)}

    return places


def compressed_tensors_fp4(compressor, group):
    two_levels = group == 16
    more = {"strategy": "tensor_group", "scale_dtype": torch.float8_e4m3fn} if two_levels else {"scale_dtype": torch.uint8}
    args = arguments(4, "float", group, **more)

    def places(weight):
        groups = weight.reshape(weight.shape[0], -1, group)
        glob = generate_gparam(weight.min(), weight.max()) if two_levels else None
        scale, _ = calculate_qparams(groups.amin(2), groups.amax(2), args, global_scale=glob)
        state = {"weight": weight, "weight_scale": scale} | ({"weight_global_scale": glob} if two_levels else {})
        made = compressor.compress(state, QuantizationScheme(targets=["Linear"], weights=args))
        out = {"codes": nibble_places(raw(made["weight_packed"]))}
        if two_levels:
            return out | {"scales": float_places(made["weight_scale"]), "global scale": float_places(glob)}
        return out | {"scales": made["weight_scale"].long().flatten()}

    return places


def torchao_integers(bits, group=None):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def places(weight):
        block = (1, group or weight.shape[1])
        scale, zero = choose_qparams_affine(weight, MappingType.SYMMETRIC, block, torch.int8, low, high)
        codes = quantize_affine(weight, block, scale, zero, torch.int8, low, high)
        return {"codes": codes.long().flatten(), "scales": float_places(scale)}

    return places


def torchao_fp8(weight):
    scale = _choose_scale_float8(weight, [1, weight.shape[1]])
    return {"codes": float_places(_quantize_affine_float8(weight, scale)), "scales": float_places(scale.to(weight.dtype))}


def torchao_mxfp4(weight):
    scale, codes = to_mx(weight.float(), torch.float4_e2m1fn_x2, 32, ScaleCalculationMode.EVEN)
    return {"codes": nibble_places(raw(codes)), "scales": scale.view(torch.uint8).long().flatten()}


def torchao_nvfp4(weight):
    scale, codes = nvfp4_quantize(weight.float(), per_tensor_scale=per_tensor_amax_to_scale(weight.abs().amax()))
    return {"codes": nibble_places(raw(codes)), "scales": float_places(scale)}


def transformers_fp8_block(weight):
    config = types.SimpleNamespace(weight_block_size=(128, 128), scale_fmt="float")
    made = Fp8Quantize(types.SimpleNamespace(quantization_config=config)).convert({"a.weight": weight})
    return {"codes": float_places(made["a.weight"]), "scales": float_places(made["a.weight_scale_inv"])}


def bitsandbytes_fp4(weight):
    return {"codes": nibble_places(raw(bnb_4bit_state(weight, "fp4")[0]), FP4_ORDER)}


def bitsandbytes_nf4_dq(weight):
    state = bitsandbytes.functional.quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=True)[1]
    return {"scales": state.absmax.long().flatten(), "nested scales": float_places(state.state2.absmax),
            "offset": float_places(state.offset.reshape(1).float())}


FRAMEWORKS = {
    "int8": {"compressed-tensors": compressed_tensors_integers(arguments(8, "int")), "torchao": torchao_integers(8)},
    "fp8": {"compressed-tensors": compressed_tensors_integers(arguments(8, "float")), "torchao": torchao_fp8},
    "int4": {"compressed-tensors": compressed_tensors_integers(arguments(4, "int", GROUP)), "torchao": torchao_integers(4, GROUP)},
    "w8a16": {"compressed-tensors": compressed_tensors_integers(arguments(8, "int", GROUP)), "torchao": torchao_integers(8, GROUP)},
    "mxfp4": {"compressed-tensors": compressed_tensors_fp4(MXFP4PackedCompressor, 32), "torchao": torchao_mxfp4},
    "nvfp4": {"compressed-tensors": compressed_tensors_fp4(NVFP4PackedCompressor, 16), "torchao": torchao_nvfp4},
    "fp8-block": {"transformers": transformers_fp8_block},
    "fp4": {"bitsandbytes": bitsandbytes_fp4},
    "nf4-dq": {"bitsandbytes": bitsandbytes_nf4_dq},
}
