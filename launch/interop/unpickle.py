#!/usr/bin/env python3
"""The tensors of a pickled model, as taming-transformers and LlamaGen save theirs, into a safetensors file with the same names.

    python launch/interop/unpickle.py IN.ckpt OUT.safetensors

A pickle can hold code. torch.load runs none of it here (`weights_only=True`): classes that the file names, such as those of
Lightning's callbacks, become empty stand-ins. The tensors are taken from `ema`, else `model`, else `state_dict`, else from the top;
`loss.*` (perceptual loss and discriminator) is left out. Needs torch and safetensors.
"""
import pathlib, sys, warnings

import torch
from safetensors.torch import save_file


class StandIn:
    """An object of a class that is not loaded."""

    def __init__(self, *arguments, **named):
        pass

    def __setstate__(self, state):
        pass


def read(path: pathlib.Path):
    """What torch.save wrote, with stand-ins for what is not a tensor, a number, a string or a container."""
    unsafe = []
    try:
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (ValueError, RuntimeError):
        pass  # A file from before torch 1.6, which lists none: loaded if it needs none.
    with warnings.catch_warnings(), torch.serialization.safe_globals([(StandIn, name) for name in unsafe]):
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def tensors_of(content, path: pathlib.Path) -> dict:
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a dictionary of tensors")
    for key in ("ema", "model", "state_dict"):
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    tensors, others = {}, []
    for name, value in content.items():
        if isinstance(value, torch.Tensor):
            if not str(name).startswith("loss."):
                tensors[str(name)] = value
        else:
            others.append(str(name))
    if not tensors:
        raise ValueError(f"{path} holds no tensors, neither at the top nor in `ema`, `model` or `state_dict`; it holds {', '.join(others[:8]) or 'nothing'}")
    return tensors


def reason(error: Exception) -> str:
    """The line of torch's message that names the cause; its first lines advise to read the file unsafely."""
    lines = [line.strip() for line in str(error).splitlines()]
    named = [line for line in lines if "Unsupported" in line or "unsupported" in line]
    if named or "Weights only" not in str(error):
        return (named or lines or [""])[0] or type(error).__name__
    return "it is cut off, or another kind of file"


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: unpickle.py IN.ckpt OUT.safetensors")
    source, target = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    try:
        source.open("rb").close()
    except OSError as error:
        sys.exit(f"error: cannot read {source}: {error.strerror}")
    try:
        content = read(source)
    except Exception as error:  # A damaged pickle can raise anything.
        sys.exit(f"error: {source} cannot be read as a file of torch.save without running code in it: {reason(error)}")
    try:
        tensors = tensors_of(content, source)
        # Two names of one storage are refused by safetensors, and written twice here.
        save_file({name: value.detach().clone().contiguous() for name, value in tensors.items()}, target, {"format": "pt"})
    except ValueError as error:
        sys.exit(f"error: {error}")
    except Exception as error:
        sys.exit(f"error: cannot write {target}: {error}")
    print(f"{len(tensors)} tensors, {sum(value.numel() for value in tensors.values())} values: {target}")


if __name__ == "__main__":
    main()
