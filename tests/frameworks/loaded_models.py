"""Loads served folders as each framework is told to, reads back the weights it then holds, and compares them."""

import json

import bitsandbytes
import bitsandbytes.functional
import torch
from accelerate import init_empty_weights
from optimum.quanto import requantize
from optimum.quanto.nn import QModuleMixin
from safetensors.torch import load_file
from transformers import AutoConfig

CASTS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
QUANTO = ("qfloat8", "qint8", "qint4")
BITSANDBYTES = ("nf4", "int8-bnb", "nf4-dq", "fp4")
COMPRESSED_TENSORS = ("int8", "fp8", "int4", "w8a16", "nvfp4", "mxfp4")
DTYPES = (*CASTS, "int8", "fp8", "int4", "nf4", *QUANTO, "fp8-block", "int8-bnb", "nf4-dq", "fp4", "w8a16", "nvfp4", "mxfp4")
FOUR_BITS = ("int4", "nf4", "qint4", "nf4-dq", "fp4", "nvfp4", "mxfp4")


def model_dtype(folder):
    """The type of what is not quantized, by the folder's config.json."""
    config = json.loads((folder / "config.json").read_text())
    return getattr(torch, config.get("dtype") or config["torch_dtype"])


def requantize_from(model, folder, weights_file="model.safetensors"):
    """Gives a model the weights of a quanto folder, as docs/FRAMEWORKS.md says. Returns the keys that did not fit, about
    which requantize() is silent."""
    weights = load_file(folder / weights_file)
    requantize(model, weights, json.loads((folder / "quanto_qmap.json").read_text()), device=torch.device("cpu"))
    tied = getattr(model, "all_tied_weights_keys", {})
    if tied:
        model.tie_weights()
    wanted = set(model.state_dict())
    return [f"missing {key}" for key in sorted(wanted - set(tied) - set(weights))] + [
        f"unexpected {key}" for key in sorted(set(weights) - wanted)]


def complaints(information):
    """Of transformers' and diffusers' output_loading_info."""
    return [f"{kind} {sorted(map(str, names))}" for kind, names in information.items() if names]


def load(auto_class, folder, dtype):
    """The transformers model of a served folder, and all that did not fit."""
    if dtype not in QUANTO:
        model, information = auto_class.from_pretrained(folder, output_loading_info=True)
        return model.eval(), complaints(information)
    config = AutoConfig.from_pretrained(folder)
    with init_empty_weights(include_buffers=False):
        model = auto_class.from_config(config, dtype=model_dtype(folder))
    return model.eval(), requantize_from(model, folder)


def dense_weight(module):
    """The weight of a module that a framework keeps quantized, or nothing."""
    if isinstance(module, bitsandbytes.nn.Linear4bit):
        return bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
    if isinstance(module, bitsandbytes.nn.Linear8bitLt):
        return bitsandbytes.functional.int8_vectorwise_dequant(module.weight.CB, module.weight.SCB)
    if isinstance(module, QModuleMixin):
        return module.weight.dequantize()
    return None


def held_weights(model):
    """All tensors of a model by name, its quantized weights dequantized; and how many of those there are."""
    held, quantized = dict(model.state_dict()), 0
    for name, module in model.named_modules():
        weight = dense_weight(module)
        if weight is not None:
            held[f"{name}.weight"] = weight.detach()
            quantized += 1
    return held, quantized


def check_weights(findings, what, dtype, model, expected, quantized):
    """Every weight that the model holds is what the file means. Where a framework computes it itself, that may differ by
    a rounding: bitsandbytes multiplies by 1/127 in fp32, and quanto repacks qint4 for a CPU's kernel."""
    held, kept = held_weights(model)
    for name, tensor in expected.items():
        if name not in held:
            findings.fail(f"{what}: no {name} in the model")
            continue
        found = held[name].to(tensor.dtype)
        limit = 0.0
        if dtype == "int8-bnb":
            limit = tensor.abs() * torch.finfo(tensor.dtype).eps if tensor.is_floating_point() else 0.0
        elif dtype == "qint4":
            limit = tensor.abs().max() * 2.0**-8
        differing = int(((found - tensor).abs() > limit).sum()) if found.shape == tensor.shape else found.shape
        findings.check(differing == 0 and bool(found.isfinite().all()), f"{what}: {name} differs in {differing} values")
    findings.check(dtype in CASTS or quantized > 0, f"{what}: nothing is quantized")
    if dtype in QUANTO or dtype in BITSANDBYTES:
        findings.check(kept == quantized, f"{what}: {kept} modules are quantized in the model, {quantized} in the file")


def output_tolerance(dtype):
    """How far an output may be from that of a model with the dequantized weights, as a part of its largest value."""
    if dtype == "int8-bnb":
        return 0.1  # rounds activations too
    if dtype in BITSANDBYTES or dtype in QUANTO:
        return 0.05  # kernels of their own; CPUs with bf16 instructions repack bitsandbytes' weights, with absmax in bf16
    return 1e-5  # dense after loading


def check_outputs(findings, what, dtype, output, expected, original):
    """Finite, near what the dequantized weights give, and not far from the original. Returns the cosine to that."""
    findings.check(bool(output.isfinite().all()), f"{what}: the output is not finite")
    error = ((output - expected).abs().max() / expected.abs().max()).item()
    findings.check(error <= output_tolerance(dtype), f"{what}: outputs are off by {error} of their largest")
    similarity = cosine(output, original)
    check_similarity(findings, what, dtype, similarity)
    return similarity


def check_similarity(findings, what, dtype, similarity):
    lowest = 0.999 if dtype in CASTS else 0.9 if dtype in FOUR_BITS else 0.99
    findings.check(similarity >= lowest, f"{what}: cosine {similarity} to the original")


def cosine(a, b):
    return torch.nn.functional.cosine_similarity(a.double().flatten(), b.double().flatten(), dim=0).item()
