#!/usr/bin/env python3
"""Mounts models with the real command and loads the adapters of ranks above 0 with PEFT and diffusers.

  served_adapters.py QCACHE_COMMAND [MINILM_FOLDER]

For each model and each dtype that quantizes: PeftModel.from_pretrained(base, folder, subfolder="lora") holds exactly the
factors of the file; for every target ||W - (Q + BA)|| < ||W - Q||, with W the source's weight and Q what the quantized file
means (dequantized.py); one training step gives every factor a gradient and changes it. `<rank>.bin` holds the same factors.
With full rank the outputs are those of the original model again. Prints the cosines of all-MiniLM-L6-v2's outputs to those of
the original by rank, as in docs/FRAMEWORKS.md. The exit status is 1 where anything fails.
"""

import os
import pathlib
import shutil
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import diffusers
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file

import served_pipeline
from dequantized import dequantized
from findings import Findings, versions
from loaded_models import CASTS, DTYPES, cosine, load
from minilm import minilm
from mounting import mounted, work_folder
from small_models import image_inputs, make_models, make_pipeline, text_inputs

MINILM = "all-MiniLM-L6-v2"
SENTENCE = "The weights of a model, rounded to fewer bits."
PREFIX = "base_model.model."
RANK = 8  # of most checks
RANKS = (0, 8, 32, 128)
ADAPTED = ("llama", "qwen2", "bert", "t5", "mixtral")  # of small_models.py, those looked at
PIPELINE = served_pipeline.NAME

findings = Findings()


def outputs(model, inputs):
    with torch.no_grad():
        return model(**inputs)[0]


def with_adapter(base, folder):
    return PeftModel.from_pretrained(base, str(folder), subfolder="lora", is_trainable=True)


def loaded_factors(model):
    """By the names of the file: PEFT puts the adapter's name into each."""
    return {name.replace(".default.", "."): parameter for name, parameter in model.named_parameters() if ".lora_" in name}


def check_factors(what, folder, model, source):
    """What PEFT holds is what the file says, and brings every weight nearer to the source's."""
    factors = load_file(folder / "lora/adapter_model.safetensors")
    held = loaded_factors(model)
    findings.check(set(held) == set(factors), f"{what}: PEFT differs in {sorted(set(held) ^ set(factors))[:4]}")
    for name, factor in factors.items():
        findings.check(name in held and torch.equal(held[name].float(), factor), f"{what}: {name} is another in PEFT")
    dense, _ = dequantized(folder / "model.safetensors", source, torch.float32)
    for name in [name for name in factors if name.endswith(".lora_A.weight")]:
        module = name.removesuffix(".lora_A.weight")
        weight = module.removeprefix(PREFIX) + ".weight"
        lost = source[weight].float() - dense[weight].float()
        rest = lost - factors[f"{module}.lora_B.weight"] @ factors[name]
        findings.check(rest.norm() < lost.norm(), f"{what}: {weight} is not nearer: {rest.norm()} after {lost.norm()}")


def check_training(what, model, inputs):
    factors = loaded_factors(model)
    before = {name: factor.detach().clone() for name, factor in factors.items()}
    optimizer = torch.optim.SGD(factors.values(), lr=1.0)
    # The last output of MiniLM is that of its pooler, which the first does not depend on.
    sum(output.float().pow(2).mean() for output in model(**inputs).to_tuple() if torch.is_tensor(output)).backward()
    idle = [name for name, factor in factors.items() if factor.grad is None or not factor.grad.isfinite().all()]
    findings.check(not idle, f"{what}: no gradient for {idle[:3]}")
    optimizer.step()
    findings.check(any(not torch.equal(before[name], factor) for name, factor in factors.items()), f"{what}: nothing learnt")


def check_checkpoint(what, folder):
    """<rank>.bin holds the factors without PEFT's prefix."""
    checkpoint = torch.load(folder.with_name(f"{folder.name}.bin"), weights_only=True, mmap=True)
    factors = load_file(folder / "lora/adapter_model.safetensors")
    found = {name for name in checkpoint if ".lora_" in name}
    findings.check(found == {name.removeprefix(PREFIX) for name in factors}, f"{what}: the .bin has {sorted(found)[:3]}")
    same = all(torch.equal(checkpoint[name.removeprefix(PREFIX)], factor) for name, factor in factors.items())
    findings.check(same, f"{what}: the .bin has other factors")


def check_folder(what, dtype, folder, auto_class, source, inputs):
    base, _ = load(auto_class, folder, dtype)
    model = with_adapter(base, folder)
    check_factors(what, folder, model, source)
    check_training(what, model, inputs)
    check_checkpoint(what, folder)


def check_full_rank(what, folder, auto_class, expected, inputs):
    model = with_adapter(load(auto_class, folder, "nf4")[0], folder)
    similarity = cosine(outputs(model, inputs), expected)
    findings.check(similarity > 0.999, f"{what}: cosine {similarity} with full rank")


def check_model(mount, name, auto_class, source, inputs, full_rank):
    quantizing = [dtype for dtype in DTYPES if dtype not in CASTS and dtype in os.listdir(mount / name)]
    tensors = load_file(source / "model.safetensors")
    if name != "mixtral":  # whose factors PEFT joins to those of fused experts: only their effect can be compared
        for dtype in quantizing:
            findings.attempt(f"{name} {dtype}", check_folder, f"{name} {dtype}", dtype, mount / name / dtype / str(RANK),
                             auto_class, tensors, inputs)
    original = outputs(auto_class.from_pretrained(source, dtype=torch.float32).eval(), inputs)
    findings.attempt(name, check_full_rank, name, mount / name / "nf4" / str(full_rank), auto_class, original, inputs)
    for dtype in CASTS:
        findings.check(not (mount / name / dtype / str(RANK)).exists(), f"{name} {dtype}: has a rank {RANK}")


def measure_ranks(mount, source, inputs):
    original = outputs(transformers.AutoModel.from_pretrained(source).eval(), inputs)
    for dtype in [dtype for dtype in DTYPES if dtype not in CASTS]:
        for rank in RANKS:
            folder = mount / MINILM / dtype / str(rank)
            model, _ = load(transformers.AutoModel, folder, dtype)
            model = with_adapter(model, folder) if rank else model
            findings.add(dtype, f"rank {rank}", cosine(outputs(model.eval(), inputs), original))
        gain = float(findings.cells[dtype, f"rank {RANKS[-1]}"]) - float(findings.cells[dtype, "rank 0"])
        findings.check(gain >= -0.001, f"{MINILM} {dtype}: rank {RANKS[-1]} made the outputs worse by {-gain}")


def check_pipeline(mount):
    """diffusers loads the factors onto the quantized transformer, and nothing but them."""
    folder = mount / PIPELINE / "nf4" / str(RANK)
    with served_pipeline.without_gpu("nf4"):
        model = diffusers.QwenImageTransformer2DModel.from_pretrained(folder, subfolder="transformer", torch_dtype=torch.bfloat16,
                                                                      device_map={"": "cpu"})
    before = outputs(model, image_inputs(torch.bfloat16))
    model.load_lora_adapter(str(folder / "lora"), weight_name="pytorch_lora_weights.safetensors", prefix="transformer")
    factors = load_file(folder / "lora/pytorch_lora_weights.safetensors")
    held = {name for name, _ in model.named_parameters() if ".lora_" in name}
    findings.check(len(held) == len(factors), f"{PIPELINE}: diffusers holds {len(held)} of {len(factors)} factors")
    after = outputs(model, image_inputs(torch.bfloat16))
    findings.check(bool(after.isfinite().all()) and not torch.equal(before, after), f"{PIPELINE}: the adapter does nothing")


def check_all(mount, models, classes):
    begun = time.monotonic()
    for name in ADAPTED:
        findings.attempt(name, check_model, mount, name, classes[name], models / name, text_inputs(name), 256)
        print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
    sentence = dict(transformers.AutoTokenizer.from_pretrained(models / MINILM)(SENTENCE, return_tensors="pt"))
    findings.attempt(MINILM, check_model, mount, MINILM, transformers.AutoModel, models / MINILM, sentence, 384)
    findings.attempt(MINILM, measure_ranks, mount, models / MINILM, sentence)
    findings.attempt(PIPELINE, check_pipeline, mount)
    print(f"all: {time.monotonic() - begun:.0f} s", flush=True)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    for library in (transformers, diffusers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    torch.set_num_threads(2)
    command = sys.argv[1]
    real = pathlib.Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else minilm()
    with work_folder("adapters") as work:
        models = work / "models"
        classes = make_models(models)
        make_pipeline(models / PIPELINE)
        shutil.copytree(real, models / MINILM)
        with mounted(command, work, models) as mount:
            check_all(mount, models, classes)
    findings.print_table([dtype for dtype in DTYPES if dtype not in CASTS])
    print(f"\n{versions()}\n{len(findings.failures)} failures")
    sys.exit(1 if findings.failures else 0)


if __name__ == "__main__":
    main()
