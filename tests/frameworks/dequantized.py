"""The dense weights of a served safetensors file, by the formulas of docs/SCHEMES.md and nothing else.

Written without any framework, so that it can tell whether a framework holds what the file means. Everything is computed in
fp32, but quanto's formulas in the type of their scales.
"""

import json

import torch
from safetensors.torch import load_file

HALVES = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
E2M1 = torch.cat([HALVES, -HALVES])
STATE = ".quant_state.bitsandbytes__"


def halves(bytes_, low_first):
    low, high = bytes_ & 15, bytes_ >> 4
    return torch.stack([low, high] if low_first else [high, low], -1).long()


def scaled(codes, scales):
    """Each of a row's scales belongs to as many neighbouring codes."""
    out, groups = scales.shape
    return (codes.reshape(out, groups, -1).float() * scales.float()[..., None]).reshape(out, -1)


def bitsandbytes_4bit(tensors, module, kind):
    state = json.loads(bytes(tensors[f"{module}.weight{STATE}{kind}"].tolist()))
    absmax = tensors[f"{module}.weight.absmax"]
    if "nested_offset" in state:
        nested = tensors[f"{module}.weight.nested_absmax"].repeat_interleave(state["nested_blocksize"])[: len(absmax)]
        absmax = tensors[f"{module}.weight.nested_quant_map"][absmax.long()] * nested + state["nested_offset"]
    values = tensors[f"{module}.weight.quant_map"][halves(tensors[f"{module}.weight"].flatten(), low_first=False)]
    return (values.reshape(-1, state["blocksize"]) * absmax[:, None]).reshape(state["shape"])


def packed_integers(tensors, module):
    words, scales = tensors[f"{module}.weight_packed"].long(), tensors[f"{module}.weight_scale"]
    out, columns = tensors[f"{module}.weight_shape"].tolist()
    bits = 32 * words.shape[1] // columns
    codes = torch.stack([(words >> shift) & (2**bits - 1) for shift in range(0, 32, bits)], -1).reshape(out, columns)
    return scaled(codes - 2 ** (bits - 1), scales)


def four_bit_floats(tensors, module):
    values = E2M1[halves(tensors[f"{module}.weight_packed"], low_first=True)].flatten(1)
    scales = tensors[f"{module}.weight_scale"]
    if scales.dtype == torch.uint8:
        return scaled(values, torch.exp2(scales.float() - 127))
    return scaled(values, scales.float() / tensors[f"{module}.weight_global_scale"])


def squares(tensors, module):
    codes, inverse = tensors[f"{module}.weight"].float(), tensors[f"{module}.weight_scale_inv"]
    return codes * inverse.repeat_interleave(128, 0).repeat_interleave(128, 1)


def quanto(tensors, module, shape):
    scales = tensors[f"{module}.weight._scale"]
    if f"{module}.weight._data" in tensors:
        return tensors[f"{module}.weight._data"].to(scales.dtype) * scales
    bytes_ = tensors[f"{module}.weight._data._data"]
    codes = torch.cat([bytes_ & 15, bytes_ >> 4])[: len(scales)].to(scales.dtype)
    return (codes * scales - tensors[f"{module}.weight._shift"]).reshape(shape)


def dense_weight(tensors, module, shape):
    """The weight of one module, or nothing where it is stored as it is."""
    weight = f"{module}.weight"
    for kind in ("nf4", "fp4"):
        if f"{weight}{STATE}{kind}" in tensors:
            return bitsandbytes_4bit(tensors, module, kind)
    if f"{module}.SCB" in tensors:
        return tensors[weight].float() * tensors[f"{module}.SCB"][:, None] / 127
    if f"{weight}_shape" in tensors:
        return packed_integers(tensors, module)
    if f"{weight}_packed" in tensors:
        return four_bit_floats(tensors, module)
    if f"{weight}_scale_inv" in tensors:
        return squares(tensors, module)
    if f"{weight}_scale" in tensors:
        return scaled(tensors[weight], tensors[f"{weight}_scale"])
    if f"{weight}._scale" in tensors:
        return quanto(tensors, module, shape)
    return None


def dequantized(path, source, dtype):
    """What the file at `path` means, as tensors named and shaped as the `source`'s: quantized weights rounded to
    `dtype`, all else as it is stored. Also how many weights are quantized."""
    tensors, out, quantized = load_file(path), {}, 0
    for name, original in source.items():
        weight = dense_weight(tensors, name.removesuffix(".weight"), original.shape) if name.endswith(".weight") else None
        quantized += weight is not None
        out[name] = tensors[name] if weight is None else weight.to(dtype)
    return out, quantized
