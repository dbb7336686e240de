#!/usr/bin/env python3
"""Small models of the original libraries, at random weights and saved by those libraries, and what they compute.

    python tests/interop/originals.py OUT [NAME ...]

Makes OUT/NAME for diffusers, diffusers-groups, diffusers-tiny, encodec, encodec-centered and dac, and with the sources
of taming-transformers and LlamaGen (TAMING_ROOT, LLAMAGEN_ROOT: a checkout each) also taming, llamagen and
llamagen-plain-codes. Beside each model is `reference.safetensors`, computed by the library in eval mode, in float32, by one thread:

    samples        uint8 [N, H, W, C] or int16 [N, T, C]
    inputs_float   [N, C, H, W] or [N, C, T]: the samples in the model's range
    latents        [N, D, positions...]: what the first quantiser sees
    codes          int64 [N, levels * positions], the level outermost, rows of a picture one after another
    decoded_float  what the decoder makes of `codes`; `decoded`: the same as raw samples

Codebooks are drawn from latents of other samples, so that many codes are used; norms, biases and Snake's
frequencies are moved from their initial values, so that a mix-up shows.
"""
import argparse, contextlib, functools, io, json, os, pathlib, sys, types

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from safetensors.torch import save_file
from torch import nn

NUM_SAMPLES = 8


def pictures(seed: int, side: int = 16, num: int = NUM_SAMPLES) -> torch.Tensor:
    """Smooth colour gradients with noise, uint8 `[N, H, W, 3]`."""
    generator = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(-1, 1, side)
    slopes = torch.randn(num, 3, 3, generator=generator)
    field = slopes[:, :, 0, None, None] + slopes[:, :, 1, None, None] * ramp[:, None] + slopes[:, :, 2, None, None] * ramp
    field = field + 0.3 * torch.randn(num, 3, side, side, generator=generator)
    return ((field.tanh() + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def sounds(seed: int, length: int = 240, num: int = NUM_SAMPLES) -> torch.Tensor:
    """Two tones with noise, int16 `[N, T, 1]`."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(length) / 8000
    tones = torch.rand(num, 2, 1, generator=generator) * 1500 + 100
    wave = torch.sin(2 * torch.pi * tones * time).sum(1) * 0.3 + 0.1 * torch.randn(num, length, generator=generator)
    return (wave.clamp(-0.99, 0.99) * 32768).round().to(torch.int16)[:, :, None].contiguous()


def to_float(samples: torch.Tensor) -> torch.Tensor:
    """Pictures to [-1, 1], sound to [-1, 1), channels first."""
    if samples.dtype == torch.uint8:
        return samples.permute(0, 3, 1, 2).float().contiguous() / 127.5 - 1
    return samples.permute(0, 2, 1).float().contiguous() / 32768


def to_raw(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if like.dtype == torch.uint8:
        return ((values.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return (values * 32768).round().clamp(-32768, 32767).to(torch.int16).permute(0, 2, 1).contiguous()


def unsettle(model: nn.Module) -> None:
    """Fresh convolutions, and every vector moved: norms, biases, Snake's frequencies, the gains of a weight norm."""
    for module in model.modules():
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)) and not hasattr(module, "parametrizations"):
            module.reset_parameters()
    for name, value in model.named_parameters():
        if "codebook" in name or "embedding" in name:
            continue
        if name.endswith("alpha") or name.endswith("original0"):
            value.mul_(1 + 0.2 * torch.rand_like(value))
        elif value.dim() == 1:
            value.add_(0.1 * torch.randn_like(value))


def draw_codes(vectors: torch.Tensor, num: int) -> torch.Tensor:
    """Codes near `num` of the vectors `[M, D]`, of which there may be fewer."""
    picked = vectors[torch.randint(len(vectors), (num,))]
    return picked + 0.2 * vectors.std(0) * torch.randn_like(picked)


def rows(latents: torch.Tensor) -> torch.Tensor:
    """`[N, D, positions...]` to `[N * positions, D]`."""
    return latents.flatten(2).transpose(1, 2).reshape(-1, latents.shape[1])


def make_loud(weight: torch.Tensor, bias: torch.Tensor, decoded: torch.Tensor) -> None:
    """Sets the last layer so that sounds fill a part of the range. At random weights they are nearly still."""
    factor = 0.3 / decoded.std()
    weight.mul_(factor)
    bias.copy_(factor * (bias - decoded.mean()))


def save_reference(folder: pathlib.Path, samples, latents, codes, decoded) -> None:
    tensors = {"samples": samples, "inputs_float": to_float(samples), "latents": latents, "codes": codes,
               "decoded_float": decoded, "decoded": to_raw(decoded, samples)}
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "reference.safetensors")
    print(f"{folder.name}: {codes.unique().numel()} codes used, outputs {decoded.min():.3f} to {decoded.max():.3f}")


def make_diffusers(folder: pathlib.Path, **kind) -> None:
    from diffusers import VQModel

    model = VQModel(latent_channels=8, vq_embed_dim=4, num_vq_embeddings=64, sample_size=16, **kind).eval()
    unsettle(model)
    model.quantize.embedding.weight.copy_(draw_codes(rows(model.encode(to_float(pictures(1))).latents), 64))
    model.save_pretrained(folder)
    samples = pictures(2)
    latents = model.encode(to_float(samples)).latents
    codes = model.quantize(latents)[2][2].reshape(NUM_SAMPLES, -1)
    model.register_to_config(lookup_from_codebook=True)
    shape = (NUM_SAMPLES, *latents.shape[2:], 4)
    decoded = model.decode(codes.flatten(), force_not_quantize=True, shape=shape).sample
    save_reference(folder, samples, latents, codes, decoded)


def source(variable: str) -> str | None:
    root = os.environ.get(variable)
    if root and root not in sys.path:
        sys.path.insert(0, root)
    return root


def taming_class():
    """taming's VQModel, without Lightning and without main.py, which imports all that a training needs."""
    source("TAMING_ROOT")
    lightning = types.ModuleType("pytorch_lightning")
    lightning.LightningModule = nn.Module
    main = types.ModuleType("main")
    main.instantiate_from_config = lambda config: nn.Module()
    sys.modules["pytorch_lightning"], sys.modules["main"] = lightning, main
    from taming.models.vqgan import VQModel

    return VQModel


def make_taming(folder: pathlib.Path) -> None:
    import yaml
    VQModel = taming_class()
    from taming.modules.discriminator.model import NLayerDiscriminator

    ddconfig = {"double_z": False, "z_channels": 8, "resolution": 16, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 1, 2],
                "num_res_blocks": 1, "attn_resolutions": [8], "dropout": 0.0}
    with contextlib.redirect_stdout(io.StringIO()):
        model = VQModel(ddconfig, {}, 64, 4).eval()
    # The real loss wants VGG's weights; these are its names.
    model.loss.discriminator = NLayerDiscriminator(3, ndf=4, n_layers=1)
    model.loss.perceptual_loss = nn.Module()
    model.loss.perceptual_loss.lin0 = nn.Conv2d(8, 1, 1, bias=False)
    unsettle(model)
    model.quantize.embedding.weight.copy_(draw_codes(rows(model.quant_conv(model.encoder(to_float(pictures(1))))), 64))
    # What Lightning 1.x leaves: the callbacks' states have the callback's class as key.
    callback = type("ModelCheckpoint", (), {"__module__": "pytorch_lightning.callbacks.model_checkpoint"})
    modules = ["pytorch_lightning.callbacks", "pytorch_lightning.callbacks.model_checkpoint"]
    for name in modules:
        sys.modules[name] = types.ModuleType(name)
    sys.modules[modules[1]].ModelCheckpoint = callback
    torch.save({"epoch": 0, "global_step": 1, "pytorch-lightning_version": "1.0.8", "state_dict": model.state_dict(),
                "callbacks": {callback: {"best_model_score": torch.tensor(1.0), "best_model_path": ""}}, "optimizer_states": [],
                "lr_schedulers": []}, folder / "model.ckpt")
    lossconfig = {"target": "taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator", "params": {"disc_start": 10000}}
    params = {"embed_dim": 4, "n_embed": 64, "ddconfig": ddconfig, "lossconfig": lossconfig}
    config = {"model": {"base_learning_rate": 4.5e-6, "target": "taming.models.vqgan.VQModel", "params": params}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    samples = pictures(2)
    latents = model.quant_conv(model.encoder(to_float(samples)))
    codes = model.encode(to_float(samples))[2][2].reshape(NUM_SAMPLES, -1)
    decoded = model.decode(model.quantize.get_codebook_entry(codes.flatten(), (NUM_SAMPLES, *latents.shape[2:], 4)))
    save_reference(folder, samples, latents, codes, decoded)


def llamagen_module(channels: int, num_res_blocks: int):
    """LlamaGen's module. Its VQModel takes the widths of Encoder and Decoder from their defaults, which are given here."""
    source("LLAMAGEN_ROOT")
    from tokenizer.tokenizer_image import vq_model as module

    for name in ("Encoder", "Decoder"):
        plain = getattr(module, name)
        plain = getattr(plain, "func", plain)
        setattr(module, name, functools.partial(plain, ch=channels, num_res_blocks=num_res_blocks))
    return module


def make_llamagen(folder: pathlib.Path, l2_norm: bool = True) -> None:
    module = llamagen_module(32, 2)
    args = {"codebook_size": 64, "codebook_embed_dim": 4, "codebook_l2_norm": l2_norm, "encoder_ch_mult": [1, 2],
            "decoder_ch_mult": [1, 2], "z_channels": 8}
    model = module.VQModel(module.ModelArgs(**args)).eval()
    unsettle(model)
    codes = draw_codes(rows(model.quant_conv(model.encoder(to_float(pictures(1))))), 64)
    model.quantize.embedding.weight.copy_(codes)
    options = argparse.Namespace(vq_model="VQ-16", codebook_size=64, codebook_embed_dim=4, codebook_l2_norm=l2_norm)
    torch.save({"model": model.state_dict(), "steps": 1, "args": options}, folder / "model.pt")
    (folder / "config.json").write_text(json.dumps(args, indent=2) + "\n")
    samples = pictures(2)
    latents = model.quant_conv(model.encoder(to_float(samples)))
    codes = model.encode(to_float(samples))[2][2].reshape(NUM_SAMPLES, -1)
    decoded = model.decode_code(codes.flatten(), (NUM_SAMPLES, 4, *latents.shape[2:]))
    save_reference(folder, samples, latents, codes, decoded)


def make_encodec(folder: pathlib.Path, **kind) -> None:
    from transformers import EncodecConfig, EncodecFeatureExtractor, EncodecModel

    # Four levels of 64 codes at 400 frames a second are 9.6 kbit/s; the first bandwidth would take two of them.
    config = EncodecConfig(sampling_rate=8000, num_filters=4, upsampling_ratios=[5, 4], hidden_size=8, codebook_size=64,
                           target_bandwidths=[4.8, 9.6], **kind)
    model = EncodecModel(config).eval()
    unsettle(model)
    residual = model.encoder(to_float(sounds(1, num=64)))
    for layer in model.quantizer.layers:
        book = layer.codebook
        book.embed.copy_(draw_codes(rows(residual), 64))
        book.cluster_size.copy_(1 + torch.rand(64))
        book.embed_avg.copy_(book.embed * book.cluster_size[:, None])
        residual = residual - layer.decode(layer.encode(residual))
    last = model.decoder.layers[-1].conv
    make_loud(last.parametrizations.weight.original0, last.bias, model(to_float(sounds(1)), bandwidth=9.6).audio_values)
    with contextlib.redirect_stderr(io.StringIO()):
        model.save_pretrained(folder)
    EncodecFeatureExtractor(feature_size=1, sampling_rate=8000).save_pretrained(folder)
    samples = sounds(2)
    latents = model.encoder(to_float(samples))
    encoded = model.encode(to_float(samples), bandwidth=9.6)
    decoded = model.decode(encoded.audio_codes, encoded.audio_scales, to_float(samples)).audio_values
    save_reference(folder, samples, latents, encoded.audio_codes[0].reshape(NUM_SAMPLES, -1), decoded)


def make_dac(folder: pathlib.Path) -> None:
    from transformers import DacConfig, DacFeatureExtractor, DacModel

    config = DacConfig(sampling_rate=8000, encoder_hidden_size=4, downsampling_ratios=[2, 4], decoder_hidden_size=16, n_codebooks=3,
                       codebook_size=64, codebook_dim=4)
    model = DacModel(config).eval()
    unsettle(model)
    residual = model.encoder(to_float(sounds(1, num=64)))
    for level in model.quantizer.quantizers:
        # Codes of unequal lengths: they are compared at length one, and decoded as they are.
        level.codebook.weight.copy_(draw_codes(rows(level.in_proj(residual)), 64) * (0.5 + torch.rand(64, 1)))
        residual = residual - level(residual)[0]
    last = model.decoder.conv2
    make_loud(last.weight, last.bias, model(to_float(sounds(1))).audio_values)
    with contextlib.redirect_stderr(io.StringIO()):
        model.save_pretrained(folder)
    DacFeatureExtractor(feature_size=1, sampling_rate=8000, hop_length=8).save_pretrained(folder)
    samples = sounds(2)
    latents = model.encoder(to_float(samples))
    codes = model.encode(to_float(samples)).audio_codes
    decoded = model.decode(audio_codes=codes).audio_values[:, None]
    save_reference(folder, samples, latents, codes.reshape(NUM_SAMPLES, -1), decoded)


MODELS = {
    "diffusers": lambda folder: make_diffusers(
        folder, block_out_channels=[32, 64], norm_num_groups=32, layers_per_block=1,
        down_block_types=["DownEncoderBlock2D", "AttnDownEncoderBlock2D"], up_block_types=["AttnUpDecoderBlock2D", "UpDecoderBlock2D"]),
    "diffusers-groups": lambda folder: make_diffusers(
        folder, block_out_channels=[16, 16, 32], norm_num_groups=8, layers_per_block=2, mid_block_add_attention=False,
        down_block_types=["DownEncoderBlock2D", "AttnDownEncoderBlock2D", "DownEncoderBlock2D"],
        up_block_types=["UpDecoderBlock2D", "AttnUpDecoderBlock2D", "UpDecoderBlock2D"]),
    # Small enough to lie among the tests.
    "diffusers-tiny": lambda folder: make_diffusers(
        folder, block_out_channels=[8, 16], norm_num_groups=4, layers_per_block=1,
        down_block_types=["DownEncoderBlock2D", "AttnDownEncoderBlock2D"], up_block_types=["AttnUpDecoderBlock2D", "UpDecoderBlock2D"]),
    "taming": make_taming,
    "llamagen": make_llamagen,
    "llamagen-plain-codes": lambda folder: make_llamagen(folder, l2_norm=False),
    "encodec": lambda folder: make_encodec(folder, use_causal_conv=True),
    "encodec-centered": lambda folder: make_encodec(
        folder, use_causal_conv=False, pad_mode="constant", use_conv_shortcut=False, num_residual_layers=2, num_lstm_layers=1,
        last_kernel_size=3),
    "dac": make_dac,
}
NEEDS = {"taming": "TAMING_ROOT", "llamagen": "LLAMAGEN_ROOT", "llamagen-plain-codes": "LLAMAGEN_ROOT"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODELS)}; all where none is given")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(MODELS):
        parser.error(f"no model {', '.join(sorted(unknown))}; there are {', '.join(MODELS)}")
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    for name in arguments.names or MODELS:
        if name in NEEDS and not source(NEEDS[name]):
            if name in arguments.names:
                sys.exit(f"{name} needs {NEEDS[name]}, a checkout of its sources")
            print(f"{name}: left out, since {NEEDS[name]} is not set")
            continue
        folder = arguments.out / name
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(20170)
        MODELS[name](folder)


if __name__ == "__main__":
    main()
