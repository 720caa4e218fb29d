#!/usr/bin/env python3
"""Mounts models with the real command and loads the folder of every dtype with the framework it is for.

  served_folders.py QCACHE_COMMAND [MINILM_FOLDER]

The models: small random ones of several kinds (small_models.py), all-MiniLM-L6-v2 (MINILM_FOLDER, else where tools/demo
keeps it, after downloading it once), and a diffusers pipeline. For each model and dtype that is listed: from_pretrained (or
quanto's requantize) leaves no key missing, unexpected or mismatched; every weight that the framework then holds equals what
docs/SCHEMES.md says the file means (dequantized.py); outputs are finite and equal those of a model with these weights.
all-MiniLM-L6-v2 also as SentenceTransformer, the pipeline also as a trainer opens it. Dtypes that are not listed are those
that are expected, each with a reason in user.qcache.refused. Prints the cosines of the outputs to those of the original
models as a table, as in docs/FRAMEWORKS.md; those of random models only say that nothing is grossly wrong. The exit status
is 1 where anything fails.
"""

import logging
import os
import pathlib
import shutil
import sys
import time
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
for chatty in ("torch", "bitsandbytes", "sentence_transformers", "diffusers"):
    logging.getLogger(chatty).setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message="`?Quanto")

import diffusers
import torch
import transformers
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

import served_pipeline
from dequantized import dequantized
from findings import Findings, versions
from loaded_models import (CASTS, COMPRESSED_TENSORS, DTYPES, QUANTO, check_outputs, check_similarity, check_weights, load,
                           model_dtype, requantize_from)
from minilm import minilm
from mounting import mounted, work_folder
from small_models import make_models, make_pipeline, text_inputs

MINILM = "all-MiniLM-L6-v2"
SENTENCES = ["A quick brown fox jumps over the lazy dog.", "The weights of a model, rounded to fewer bits.",
             "Wer liest, was wir schreiben?", "It rained all day, so we stayed inside and played chess."]
REFUSED_WITH_EXPERTS = {"int8", "nvfp4", *QUANTO}
REFUSED = {"mixtral": REFUSED_WITH_EXPERTS, "gpt-oss": REFUSED_WITH_EXPERTS,
           "llama4": set(DTYPES) - {*CASTS, "fp8-block"}, served_pipeline.NAME: {"fp8-block", *COMPRESSED_TENSORS}}

findings = Findings()


def listed_folders(mount, name):
    """The folders of a model by dtype; the other dtypes are those that are expected, and each has a reason."""
    attributes = os.listxattr(mount / name)
    reasons = os.getxattr(mount / name, "user.qcache.refused").decode() if "user.qcache.refused" in attributes else ""
    refused = dict(line.split(": ", 1) for line in reasons.splitlines())
    listed = set(os.listdir(mount / name))
    findings.check(listed == set(DTYPES) - REFUSED.get(name, set()), f"{name} is listed in {sorted(listed)}")
    findings.check(set(refused) == set(DTYPES) - listed, f"{name}: reasons are given for {sorted(refused)}")
    for dtype in DTYPES:
        if dtype not in listed:
            findings.refuse(dtype, name, refused.get(dtype, "no reason given"))
    return {dtype: mount / name / dtype / "0" for dtype in DTYPES if dtype in listed}


def outputs(model, inputs):
    with torch.no_grad():
        return model(**inputs)[0]


def model_inputs(name, source):
    if name != MINILM:
        return text_inputs(name)
    return dict(transformers.AutoTokenizer.from_pretrained(source)(" ".join(SENTENCES), return_tensors="pt"))


def dense_model(auto_class, source, tensors, dtype, scratch):
    """The model with the given weights. Also by from_pretrained, which renames and joins tensors in its own way."""
    scratch.mkdir(exist_ok=True)
    save_file(tensors, scratch / "model.safetensors", {"format": "pt"})
    shutil.copy(source / "config.json", scratch)
    return auto_class.from_pretrained(scratch, dtype=dtype).eval()


def check_folder(name, dtype, folder, auto_class, source, original, scratch):
    """Returns the cosine of the outputs. `original`: the source's tensors, inputs, outputs, and tensors of no use to the
    model (which every loader passes over)."""
    what = f"{name} {dtype}"
    tensors, inputs, expected, unused = original
    model, misfits = load(auto_class, folder, dtype)
    misfits = [misfit for misfit in misfits if misfit.removeprefix("unexpected ") not in unused]
    findings.check(not misfits, f"{what}: {misfits}")
    dense, quantized = dequantized(folder / "model.safetensors", tensors, model_dtype(folder))
    for key, tensor in tensors.items():
        if tensor.ndim == 3:  # experts stored together, of which no scheme knows
            findings.check(torch.equal(dense[key], tensor.to(dense[key].dtype)), f"{what}: {key} is not dense")
    reference = dense_model(auto_class, source, dense, model_dtype(folder), scratch)
    check_weights(findings, what, dtype, model, reference.state_dict(), quantized)
    return check_outputs(findings, what, dtype, outputs(model, inputs), outputs(reference, inputs), expected)


def check_model(mount, name, auto_class, source, scratch):
    folders = listed_folders(mount, name)
    model = auto_class.from_pretrained(source).eval()
    tensors, inputs = load_file(source / "model.safetensors"), model_inputs(name, source)
    # The files are named as the model is, but for a mixture of experts, of which no quanto folder is served.
    original = (tensors, inputs, outputs(model, inputs), set(tensors) - set(model.state_dict()))
    for dtype, folder in folders.items():
        similarity = findings.attempt(f"{name} {dtype}", check_folder, name, dtype, folder, auto_class, source, original, scratch)
        if similarity is not None:
            findings.add(dtype, name, similarity)


def embeddings(folder, dtype):
    if dtype not in QUANTO:
        return SentenceTransformer(str(folder), device="cpu").encode(SENTENCES, convert_to_tensor=True)
    model = SentenceTransformer(str(folder.parents[1] / "fp32/0"), device="cpu")
    requantize_from(model[0].auto_model, folder)
    with torch.no_grad():  # encode() uses torch.inference_mode(), in which quanto's qint4 fails
        return model(model.tokenize(SENTENCES))["sentence_embedding"]


def check_sentences(mount, source):
    """The least cosine of all sentences' embeddings."""
    original = SentenceTransformer(str(source), device="cpu").encode(SENTENCES, convert_to_tensor=True)
    for dtype in DTYPES:
        what = f"{MINILM} {dtype} as SentenceTransformer"
        found = findings.attempt(what, embeddings, mount / MINILM / dtype / "0", dtype)
        if found is not None:
            least = torch.nn.functional.cosine_similarity(found.double(), original.double()).min().item()
            check_similarity(findings, what, dtype, least)
            findings.add(dtype, "its sentences", least)


def check_all(mount, sources, classes, scratch):
    timed = time.monotonic()
    for name, auto_class in classes.items():
        findings.attempt(name, check_model, mount, name, auto_class, sources[name], scratch)
        print(f"{name}: {time.monotonic() - timed:.0f} s", flush=True)
    findings.attempt("sentences", check_sentences, mount, sources[MINILM])
    pipeline = served_pipeline.NAME
    folders = findings.attempt(pipeline, listed_folders, mount, pipeline) or {}
    findings.attempt(pipeline, served_pipeline.check_pipeline, findings, mount, sources[pipeline], folders)
    print(f"all: {time.monotonic() - timed:.0f} s", flush=True)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    for library in (transformers, diffusers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    torch.set_num_threads(2)  # the models are small: more threads only wait for each other
    command = sys.argv[1]
    real = pathlib.Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else minilm()
    with work_folder("folders") as work:
        models = work / "models"
        classes = make_models(models)
        make_pipeline(models / served_pipeline.NAME)
        (work / "real").mkdir()
        shutil.copytree(real, work / "real" / MINILM)
        sources = {MINILM: work / "real" / MINILM} | {path.name: path for path in models.iterdir()}
        classes[MINILM] = transformers.AutoModel
        with mounted(command, work, models, work / "real") as mount:
            check_all(mount, sources, classes, work / "dense")
    findings.print_table(DTYPES)
    print(f"\n{versions()}\n{len(findings.failures)} failures")
    sys.exit(1 if findings.failures else 0)


if __name__ == "__main__":
    main()
