"""The folders of a diffusers pipeline, and a trainer that starts from one."""

import contextlib
import time
import unittest.mock

import torch
from accelerate import init_empty_weights
from diffusers import FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel
from diffusers.quantizers.bitsandbytes import BnB4BitDiffusersQuantizer, BnB8BitDiffusersQuantizer
from optimum.quanto import freeze, qfloat8, quantize
from optimum.quanto.nn import QModuleMixin
from peft import LoraConfig
from safetensors.torch import load_file

from dequantized import dequantized
from loaded_models import BITSANDBYTES, CASTS, check_outputs, check_weights, complaints, requantize_from
from small_models import image_inputs

NAME = "qwen-image"
WEIGHTS = "diffusion_pytorch_model.safetensors"
LORA_TARGETS = ["to_k", "to_q", "to_v", "to_out.0"]


def outputs(model, dtype=torch.bfloat16):
    with torch.no_grad():
        return model.eval()(**image_inputs(dtype))[0]


def without_gpu(dtype):
    """diffusers' check for a GPU put aside: what it loads for one can be looked at without it."""
    if dtype not in BITSANDBYTES or torch.cuda.is_available():
        return contextlib.nullcontext()
    quantizer = BnB8BitDiffusersQuantizer if dtype == "int8-bnb" else BnB4BitDiffusersQuantizer
    return unittest.mock.patch.object(quantizer, "validate_environment")


def check_folder(findings, folder, dtype, source, original):
    what = f"{NAME} {dtype}"
    FlowMatchEulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler")
    compute = CASTS.get(dtype, torch.bfloat16)
    arguments = {"device_map": {"": "cpu"}} if dtype in BITSANDBYTES else {}
    with without_gpu(dtype):
        model, information = QwenImageTransformer2DModel.from_pretrained(
            folder, subfolder="transformer", torch_dtype=compute, output_loading_info=True, **arguments)
    findings.check(not complaints(information), f"{what}: {complaints(information)}")
    tensors, quantized = dequantized(folder / "transformer" / WEIGHTS, source, compute)
    check_weights(findings, what, dtype, model, tensors, quantized)
    dense = QwenImageTransformer2DModel.from_config(QwenImageTransformer2DModel.load_config(folder / "transformer"))
    dense.to(compute).load_state_dict(tensors)
    return check_outputs(findings, what, dtype, outputs(model, compute), outputs(dense, compute), original)


def open_for_training(folder):
    """As docs/FRAMEWORKS.md tells a trainer's author."""
    with init_empty_weights(include_buffers=False):
        model = QwenImageTransformer2DModel.from_config(QwenImageTransformer2DModel.load_config(folder))
    misfits = requantize_from(model, folder, WEIGHTS)
    return model.to(torch.bfloat16), misfits


def quantize_in_place(source):
    """As trainers do it at every start."""
    model = QwenImageTransformer2DModel.from_pretrained(source, subfolder="transformer", torch_dtype=torch.bfloat16)
    quantize(model, weights=qfloat8)
    freeze(model)
    return model


def check_same_codes(findings, model, other):
    """What is quantized here and by quanto itself is so to the same bytes, but for rows of zeros (NaN with quanto)."""
    same = 0
    theirs = dict(other.named_modules())
    for name, module in model.named_modules():
        if not isinstance(module, QModuleMixin):
            continue
        ours, quantos = module.weight, theirs[name].weight
        rows = quantos._scale.flatten() != 0
        equal = torch.equal(ours._data[rows].view(torch.uint8), quantos._data[rows].view(torch.uint8))
        findings.check(equal, f"{NAME} training: {name} is not what quanto makes in place")
        same += equal
    return same


def check_training(findings, mount, source):
    """One step of a LoRA on the qfloat8 folder. Called while nothing of it has been read."""
    folder = mount / NAME / "qfloat8/0/transformer"
    started = [time.monotonic()]
    in_place = quantize_in_place(source)
    started.append(time.monotonic())
    model, misfits = open_for_training(folder)
    started.append(time.monotonic())
    open_for_training(folder)
    started.append(time.monotonic())
    seconds = [f"{after - before:.2f} s" for before, after in zip(started, started[1:])]
    print(f"a trainer's start: quantizing in place {seconds[0]}, from the folder {seconds[1]} the first time, then {seconds[2]}")
    findings.check(not misfits, f"{NAME} training: {misfits}")
    print(f"{check_same_codes(findings, model, in_place)} weights have the codes that quanto makes in place")

    model.requires_grad_(False)
    model.add_adapter(LoraConfig(r=4, lora_alpha=4, init_lora_weights="gaussian", target_modules=LORA_TARGETS))
    factors = {name: factor for name, factor in model.named_parameters() if factor.requires_grad}
    optimizer = torch.optim.AdamW(factors.values(), lr=1e-3)

    def loss():
        return model(**image_inputs(torch.bfloat16))[0].float().pow(2).mean()

    before = loss()
    before.backward()
    trained = [name for name, factor in factors.items() if factor.grad is not None and bool(factor.grad.isfinite().all())]
    findings.check(len(factors) == 2 * len(LORA_TARGETS) * 2 and len(trained) == len(factors),
                   f"{NAME} training: {len(trained)} of {len(factors)} factors have gradients")
    optimizer.step()
    after = loss().item()
    findings.check(after < before.item(), f"{NAME} training: the loss went from {before.item()} to {after}")
    print(f"a LoRA of {len(factors)} factors: loss {before.item():.5f}, after one step {after:.5f}")


def check_pipeline(findings, mount, source, folders):
    """All folders of the pipeline, given by dtype."""
    findings.attempt(f"{NAME} training", check_training, findings, mount, source)
    weights = load_file(source / "transformer" / WEIGHTS)
    original = outputs(QwenImageTransformer2DModel.from_pretrained(source, subfolder="transformer", torch_dtype=torch.bfloat16))
    for dtype, folder in folders.items():
        similarity = findings.attempt(f"{NAME} {dtype}", check_folder, findings, folder, dtype, weights, original)
        if similarity is not None:
            findings.add(dtype, NAME, similarity)
    if not torch.cuda.is_available():
        findings.notes.append(f"{NAME}: {', '.join(BITSANDBYTES)} were loaded on a CPU, with diffusers' check for a GPU put aside")
