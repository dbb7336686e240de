"""VQGAN's network in plain PyTorch, as a function of its tensors: what runs an export where the original sources are not at hand.

    tensors = taming_names(load_file("model.safetensors"))
    network = Vqgan(tensors)
    latents = network.latents(pictures)                # [N, 3, H, W] in [-1, 1] to [N, D, h, w]
    codes = network.nearest(latents)                   # [N, h, w]
    pictures = network.decode(network.vectors(codes))

The layout is read off the names and shapes of taming-transformers' VQModel (Esser et al. 2021); LlamaGen's are renamed.
Not in the file, and so arguments: the groups of the norms, and whether codes are compared at length one.
"""
import re

import torch
import torch.nn.functional as F


def taming_names(tensors: dict) -> dict:
    """The tensors of a VQModel of taming or of LlamaGen under taming's names, without losses and statistics."""
    levels = 1 + max((int(found[1]) for name in tensors if (found := re.match(r"decoder\.conv_blocks\.(\d+)\.", name))), default=0)
    renamed = {}
    for name, value in tensors.items():
        if name.startswith("loss.") or name == "quantize.codebook_used":
            continue
        name = re.sub(r"^encoder\.conv_blocks\.", "encoder.down.", name)
        # LlamaGen counts the decoder's levels from the coarsest, taming from the finest.
        name = re.sub(r"^decoder\.conv_blocks\.(\d+)\.", lambda found: f"decoder.up.{levels - 1 - int(found[1])}.", name)
        name = re.sub(r"\.res\.(\d+)\.", r".block.\1.", name)
        for number, middle in enumerate(["block_1", "attn_1", "block_2"]):
            name = name.replace(f".mid.{number}.", f".mid.{middle}.")
        renamed[name] = value
    return renamed


class Vqgan:
    def __init__(self, tensors: dict, groups: int = 32, normalized_codes: bool = False):
        self.tensors, self.groups = tensors, groups
        self.codes_kd = tensors["quantize.embedding.weight"]
        if normalized_codes:
            self.codes_kd = F.normalize(self.codes_kd, dim=-1)
        self.normalized_codes = normalized_codes
        self.used = {"quantize.embedding.weight"}

    def latents(self, pictures):
        hidden = self._conv("encoder.conv_in", pictures)
        level = 0
        while self._has(f"encoder.down.{level}.block.0.conv1"):
            hidden = self._blocks(f"encoder.down.{level}", hidden)
            if self._has(f"encoder.down.{level}.downsample.conv"):
                # One zero on the right and at the bottom, as the sources have it.
                padded = F.pad(hidden, (0, 1, 0, 1))
                hidden = self._conv(f"encoder.down.{level}.downsample.conv", padded, stride=2, padding=0)
            level += 1
        hidden = self._middle("encoder.mid", hidden)
        hidden = self._conv("encoder.conv_out", F.silu(self._norm("encoder.norm_out", hidden)))
        return self._conv("quant_conv", hidden)

    def decode(self, vectors):
        hidden = self._conv("decoder.conv_in", self._conv("post_quant_conv", vectors))
        hidden = self._middle("decoder.mid", hidden)
        levels = 0
        while self._has(f"decoder.up.{levels}.block.0.conv1"):
            levels += 1
        for level in reversed(range(levels)):
            hidden = self._blocks(f"decoder.up.{level}", hidden)
            if self._has(f"decoder.up.{level}.upsample.conv"):
                hidden = self._conv(f"decoder.up.{level}.upsample.conv", F.interpolate(hidden, scale_factor=2.0, mode="nearest"))
        return self._conv("decoder.conv_out", F.silu(self._norm("decoder.norm_out", hidden)))

    def nearest(self, latents):
        latents_nhwd = latents.permute(0, 2, 3, 1)
        if self.normalized_codes:
            latents_nhwd = F.normalize(latents_nhwd, dim=-1)
        return (self.codes_kd.square().sum(1) - 2 * latents_nhwd @ self.codes_kd.T).argmin(-1)

    def vectors(self, codes):
        return self.codes_kd[codes].permute(0, 3, 1, 2)

    def unused(self) -> list[str]:
        """Tensors that neither `latents` nor `decode` has read: names that do not belong here."""
        return sorted(set(self.tensors) - self.used)

    def _has(self, name: str) -> bool:
        return f"{name}.weight" in self.tensors

    def _parameters(self, name: str):
        both = f"{name}.weight", f"{name}.bias"
        for part in both:
            if part not in self.tensors:
                raise ValueError(f"there is no tensor {part}")
        self.used |= set(both)
        return self.tensors[both[0]], self.tensors[both[1]]

    def _conv(self, name: str, hidden, stride: int = 1, padding: int | None = None):
        weight, bias = self._parameters(name)
        return F.conv2d(hidden, weight, bias, stride, weight.shape[-1] // 2 if padding is None else padding)

    def _norm(self, name: str, hidden):
        return F.group_norm(hidden, self.groups, *self._parameters(name), eps=1e-6)

    def _blocks(self, name: str, hidden):
        block = 0
        while self._has(f"{name}.block.{block}.conv1"):
            hidden = self._residual(f"{name}.block.{block}", hidden)
            if self._has(f"{name}.attn.{block}.q"):
                hidden = self._attention(f"{name}.attn.{block}", hidden)
            block += 1
        return hidden

    def _middle(self, name: str, hidden):
        hidden = self._residual(f"{name}.block_1", hidden)
        if self._has(f"{name}.attn_1.q"):
            hidden = self._attention(f"{name}.attn_1", hidden)
        return self._residual(f"{name}.block_2", hidden)

    def _residual(self, name: str, hidden):
        branch = self._conv(f"{name}.conv1", F.silu(self._norm(f"{name}.norm1", hidden)))
        branch = self._conv(f"{name}.conv2", F.silu(self._norm(f"{name}.norm2", branch)))
        if self._has(f"{name}.nin_shortcut"):
            hidden = self._conv(f"{name}.nin_shortcut", hidden)
        return hidden + branch

    def _attention(self, name: str, hidden):
        normed = self._norm(f"{name}.norm", hidden)
        queries, keys, values = (self._conv(f"{name}.{part}", normed).flatten(2) for part in "qkv")
        weights = (queries.transpose(1, 2) @ keys * queries.shape[1] ** -0.5).softmax(-1)
        return hidden + self._conv(f"{name}.proj_out", (values @ weights.transpose(1, 2)).reshape(hidden.shape))
