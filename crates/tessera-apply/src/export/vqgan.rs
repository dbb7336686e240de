//! VQGAN's network for diffusers, taming-transformers and LlamaGen.
//!
//! All three have one codebook, whose nearest code is taken by Euclidean distance, and LlamaGen by angle. Codes on the unit
//! sphere are nearest by both at once, so a cosine codebook fits everywhere, and so do the corners that the bits of `lfq`
//! and `bsq` choose among.

use serde_json::json;
use tch::Tensor;
use tessera_data::{Modality, SampleShape};
use tessera_nn::BackboneConfig;
use tessera_nn::backbone::UNet2dConfig;
use tessera_nn::backbone::unet2d::names;
use tessera_nn::graph::Rule;

use super::weights::{Named, to_bytes};
use super::{Source, Written, pickle};

/// Groups of channels of norms in taming-transformers and LlamaGen.
const GROUPS: i64 = 32;
/// Farthest that a code's length may be from one where it counts as on the sphere.
const OFF_SPHERE: f64 = 1e-4;

/// A network and a codebook `[K, D]` that all three programs know.
struct Vqgan<'a> {
    backbone: &'a UNet2dConfig,
    codes_kd: Tensor,
    is_on_sphere: bool,
    shape: SampleShape,
}

/// A folder for `diffusers.VQModel.from_pretrained`.
pub(super) fn diffusers(source: &Source<'_>) -> Result<Vec<Written>, String> {
    let vqgan = Vqgan::of(source)?;
    let UNet2dConfig { channels, multipliers, residual_blocks, groups, latent_channels, .. } =
        vqgan.backbone;
    if multipliers[0] != 1 {
        return Err(format!(
            "its first level has {channels} channels times {}, and there the first multiplier is 1",
            multipliers[0]
        ));
    }
    let named = vqgan.named(source, names::Source::Diffusers);
    let types = |down: bool| {
        let levels: Vec<usize> = (0..multipliers.len()).collect();
        let word = |&level: &usize| match (vqgan.attends(level), down) {
            (false, true) => "DownEncoderBlock2D",
            (true, true) => "AttnDownEncoderBlock2D",
            (false, false) => "UpDecoderBlock2D",
            (true, false) => "AttnUpDecoderBlock2D",
        };
        let mut words: Vec<&str> = levels.iter().map(word).collect();
        if !down {
            words.reverse();
        }
        words
    };
    let SampleShape { height, width, channels: colors, .. } = vqgan.shape;
    let config = json!({
        "_class_name": "VQModel",
        "act_fn": "silu",
        "block_out_channels": multipliers.iter().map(|number| number * channels).collect::<Vec<_>>(),
        "down_block_types": types(true),
        "force_upcast": false,
        "in_channels": colors,
        "latent_channels": latent_channels,
        "layers_per_block": residual_blocks,
        "lookup_from_codebook": true,
        "mid_block_add_attention": vqgan.backbone.middle_attention,
        "norm_num_groups": groups,
        "norm_type": "group",
        "num_vq_embeddings": vqgan.codes_kd.size()[0],
        "out_channels": colors,
        "sample_size": height.max(width),
        "scaling_factor": 1.0,
        "up_block_types": types(false),
        "vq_embed_dim": vqgan.codes_kd.size()[1],
    });
    Ok(vec![
        Written::json("config.json", &config),
        Written { name: "diffusion_pytorch_model.safetensors", bytes: to_bytes(&named) },
    ])
}

/// Weights and configuration of `taming.models.vqgan.VQModel`: `last.ckpt` as its trainings leave one.
pub(super) fn taming(source: &Source<'_>) -> Result<Vec<Written>, String> {
    let vqgan = Vqgan::of(source)?;
    vqgan.check_groups()?;
    let UNet2dConfig { channels, multipliers, residual_blocks, latent_channels, .. } =
        vqgan.backbone;
    let named = vqgan.named(source, names::Source::Taming);
    let config = json!({
        "model": {
            "target": "taming.models.vqgan.VQModel",
            "params": {
                "embed_dim": vqgan.codes_kd.size()[1],
                "n_embed": vqgan.codes_kd.size()[0],
                "ddconfig": {
                    "attn_resolutions": vqgan.backbone.attention_resolutions,
                    "ch": channels,
                    "ch_mult": multipliers,
                    "double_z": false,
                    "dropout": 0.0,
                    "in_channels": vqgan.shape.channels,
                    "num_res_blocks": residual_blocks,
                    "out_ch": vqgan.shape.channels,
                    "resolution": vqgan.shape.height,
                    "z_channels": latent_channels,
                },
                "lossconfig": { "target": "taming.modules.losses.DummyLoss" },
            },
        },
    });
    if vqgan.shape.height != vqgan.shape.width && !vqgan.backbone.attention_resolutions.is_empty() {
        return Err(
            "its pictures are no squares, by whose side levels get attention there".to_owned()
        );
    }
    // JSON is YAML too.
    Ok(vec![
        Written::json("config.yaml", &config),
        Written { name: "last.ckpt", bytes: pickle::to_bytes("state_dict", &named)? },
        Written { name: "model.safetensors", bytes: to_bytes(&named) },
    ])
}

/// Weights and configuration of LlamaGen's `tokenizer.tokenizer_image.vq_model.VQModel`: `model.pt` as its programs read one.
pub(super) fn llama_gen(source: &Source<'_>) -> Result<Vec<Written>, String> {
    let vqgan = Vqgan::of(source)?;
    vqgan.check_groups()?;
    let UNet2dConfig { channels, multipliers, residual_blocks, latent_channels, .. } =
        vqgan.backbone;
    let last = multipliers.len() - 1;
    if let Some(level) = (0..=last).find(|&level| vqgan.attends(level) != (level == last)) {
        let (has, _) = if vqgan.attends(level) { ("has", "") } else { ("has no", "") };
        return Err(format!(
            "its level {level} {has} attention, and there the last level, {last}, has it alone \
             (model.backbone.attention_resolutions)"
        ));
    }
    if (vqgan.shape.channels, *channels) != (3, *channels) {
        return Err("its pictures are gray, and there they have three colors".to_owned());
    }
    if *residual_blocks != 2 {
        return Err(format!(
            "it has {residual_blocks} residual blocks a level, and there there are 2"
        ));
    }
    let mut named = vqgan.named(source, names::Source::LlamaGen);
    named.insert("quantize.codebook_used".to_owned(), Tensor::zeros([65536], tch::kind::FLOAT_CPU));
    let (num_codes, dim) = (vqgan.codes_kd.size()[0], vqgan.codes_kd.size()[1]);
    let config = json!({
        "codebook_embed_dim": dim,
        "codebook_l2_norm": vqgan.is_on_sphere,
        "codebook_size": num_codes,
        "decoder_ch_mult": multipliers,
        "dropout_p": 0.0,
        "encoder_ch_mult": multipliers,
        "z_channels": latent_channels,
        "ch": channels,
    });
    Ok(vec![
        Written::json("config.json", &config),
        Written { name: "model.pt", bytes: pickle::to_bytes("model", &named)? },
        Written { name: "model.safetensors", bytes: to_bytes(&named) },
    ])
}

impl<'a> Vqgan<'a> {
    fn of(source: &'a Source<'_>) -> Result<Self, String> {
        source.check_modality(Modality::Image, "pictures")?;
        let BackboneConfig::Unet2d(backbone) = &source.config.backbone else {
            return Err("its backbone is not unet2d, which is the network there".to_owned());
        };
        if source.config.output != tessera_nn::Output::Values {
            return Err(
                "its outputs are distributions (model.output = \"logit_laplace\")".to_owned()
            );
        }
        let model = &source.model.vqvae;
        let rule = model.quantizers[0].rule(&model.parameters)?;
        let (codes_kd, is_on_sphere) = codebook(&rule)?;
        let shape = source.model.file.autoencoder().shape;
        Ok(Self { backbone, codes_kd, is_on_sphere, shape })
    }

    /// Whether a level has attention.
    fn attends(&self, level: usize) -> bool {
        let shorter = i64::from(self.shape.height.min(self.shape.width));
        self.backbone.attention_resolutions.contains(&(shorter >> level))
    }

    /// All tensors by the names of `to`.
    fn named(&self, source: &Source<'_>, to: names::Source) -> Named {
        let num_levels = self.backbone.multipliers.len();
        let theirs = |(ours, tensor): (String, Tensor)| {
            let shape = to.shape(&ours, &tensor.size());
            let name = to.theirs(&ours, num_levels).expect("it is a tensor of this network");
            (name, tensor.view(shape.as_slice()))
        };
        let mut named: Named = source.networks().into_iter().map(theirs).collect();
        named.insert("quantize.embedding.weight".to_owned(), self.codes_kd.shallow_clone());
        named
    }

    /// Refuses norms that two of the programs do not have.
    fn check_groups(&self) -> Result<(), String> {
        let UNet2dConfig { groups, middle_attention, .. } = self.backbone;
        if *groups != GROUPS {
            return Err(format!(
                "its norms have {groups} groups, and there they have {GROUPS} (model.backbone.groups)"
            ));
        }
        match middle_attention {
            true => Ok(()),
            false => Err("it has no attention in the middle, and there it has \
                          (model.backbone.middle_attention)"
                .to_owned()),
        }
    }
}

/// The codes of a rule that takes the nearest of them, and whether all are on the unit sphere.
fn codebook(rule: &Rule) -> Result<(Tensor, bool), String> {
    let (codes_kd, is_by_angle) = match rule {
        Rule::Nearest { codes_kd, is_unit, .. } => (codes_kd, *is_unit),
        Rule::Signs { codes_kd } => (codes_kd, false),
        Rule::Levels { .. } => {
            return Err(
                "its quantiser rounds what a tanh gives (fsq), which is no nearest code".to_owned()
            );
        }
        Rule::Projected { .. } => {
            return Err("its quantiser has layers of its own (latent_dim): there quant_conv and \
                        post_quant_conv alone lead to codes and back"
                .to_owned());
        }
        Rule::Residual { .. } | Rule::Grouped(_) => {
            return Err("its positions have several codes, and there they have one".to_owned());
        }
    };
    let lengths = codes_kd.norm_scalaropt_dim(2, [1i64], false);
    let is_on_sphere = (lengths - 1.0).abs().max().double_value(&[]) < OFF_SPHERE;
    if is_by_angle && !is_on_sphere {
        return Err("codes are compared by angle and differ in length (cosine_search)".to_owned());
    }
    Ok((codes_kd.shallow_clone(), is_on_sphere && is_by_angle))
}
