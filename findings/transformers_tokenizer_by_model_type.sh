#!/usr/bin/env bash
# transformers loads a saved tokenizer as another class than it was saved as, and every text becomes no token at all.
#
# Version: transformers 5.23.0, tokenizers 0.23.3.
# Behaviour: a word-level tokenizer that PreTrainedTokenizerFast.save_pretrained() wrote (tokenizer.json and a tokenizer_config.json
#   that names its class) into a folder whose config.json says model_type qwen2 is loaded by AutoTokenizer as Qwen2Tokenizer, which builds
#   a byte-level BPE of its own from it: `input_ids` is [] for every text, without a warning.
# One would guess: tokenizer.json says completely what a fast tokenizer does, so AutoTokenizer gives the same ids as the class that
#   wrote it, as it does without a config.json; or it fails.
# Met where: small models of known architectures, made for tests, with a toy tokenizer: generate() gets an empty prompt.
# Seen on 2026-12-01 (Debian 12, amd64, Python 3.11):
#   transformers 5.23.0, tokenizers 0.23.3
#   saved as PreTrainedTokenizerFast: [0, 1, 2]
#   AutoTokenizer without config.json: TokenizersBackend [0, 1, 2]
#   AutoTokenizer with model_type qwen2: Qwen2Tokenizer []
#   AS FOUND
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check transformers==5.23.0 tokenizers==0.23.3

HF_HUB_OFFLINE=1 venv/bin/python -W ignore - 2>/dev/null <<'EOF'
import json
import sys

import tokenizers
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

print(f"transformers {transformers.__version__}, tokenizers {tokenizers.__version__}")
TEXT = "one two three"
tokenizer = Tokenizer(models.WordLevel({"one": 0, "two": 1, "three": 2, "<unk>": 3}, unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
saved = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
saved.save_pretrained("toy")
print(f"saved as PreTrainedTokenizerFast: {saved(TEXT)['input_ids']}")
plain = AutoTokenizer.from_pretrained("toy")
print(f"AutoTokenizer without config.json: {type(plain).__name__} {plain(TEXT)['input_ids']}")
with open("toy/config.json", "w") as config:
    json.dump({"model_type": "qwen2"}, config)
chosen = AutoTokenizer.from_pretrained("toy")
print(f"AutoTokenizer with model_type qwen2: {type(chosen).__name__} {chosen(TEXT)['input_ids']}")
if not (plain(TEXT)["input_ids"] == saved(TEXT)["input_ids"] and chosen(TEXT)["input_ids"] == []):
    sys.exit("CHANGED")
print("AS FOUND")
EOF
