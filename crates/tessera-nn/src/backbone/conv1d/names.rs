//! What the sources of the network call our tensors. Shapes are the same.
//!
//! Only names: files are read and written elsewhere. Codes are the quantiser's, and so are the projections to and from
//! the Descript codec's codes. Attention has no name there.

use super::config::{Conv1dConfig, Shortcut};

/// A source of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The packages encodec and AudioCraft.
    Encodec,
    /// transformers' `EncodecModel`.
    TransformersEncodec,
    /// transformers' `DacModel`. Its files have plain weights, so `weight_norm` is false for them.
    TransformersDac,
}

impl Source {
    /// Their name of a tensor of ours, in this network; none where they have no such tensor.
    pub fn theirs(self, ours: &str, config: &Conv1dConfig) -> Option<String> {
        let mut pairs = self.pairs(config).into_iter();
        pairs.find(|pair| pair.0 == ours).map(|pair| pair.1)
    }

    /// Our name of a tensor of theirs, in this network; none where it is not one of this network's.
    pub fn ours(self, theirs: &str, config: &Conv1dConfig) -> Option<String> {
        let mut pairs = self.pairs(config).into_iter();
        pairs.find(|pair| pair.1 == theirs).map(|pair| pair.0)
    }

    /// Every tensor that a network of these sizes may have, by our name and theirs, whether its weights are normalised
    /// or not.
    fn pairs(self, config: &Conv1dConfig) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        for (side, places) in [("encoder", encoder(config)), ("decoder", decoder(config))] {
            for (number, place) in places.iter().enumerate() {
                for layer in place.layers(config) {
                    let Some(theirs) = self.layer(side, number, place, &layer) else { continue };
                    for (tensor, there) in self.tensors(layer.kind, config) {
                        let ours = format!("{side}.{}{}.{tensor}", place.ours, layer.ours);
                        pairs.push((ours, format!("{theirs}.{there}")));
                    }
                }
            }
        }
        pairs
    }

    /// Their name of a layer of the place that is the side's `number`th in the order of computation.
    fn layer(self, side: &str, number: usize, place: &Place, layer: &Layer) -> Option<String> {
        let inner = match (self, layer.kind) {
            (Self::TransformersDac, Kind::Lstm) => return None,
            (Self::TransformersDac, _) => {
                return layer.dac.map(|dac| format!("{side}.{}{dac}", place.dac));
            }
            (_, Kind::Snake) => return None,
            (_, Kind::Lstm) => "lstm",
            (Self::TransformersEncodec, _) => "conv",
            (Self::Encodec, Kind::ConvTranspose) => "convtr.convtr",
            (Self::Encodec, Kind::Conv) => "conv.conv",
        };
        let list = if self == Self::Encodec { "model" } else { "layers" };
        Some(format!("{side}.{list}.{number}{}.{inner}", layer.encodec))
    }

    /// Tensors of a layer by our name and theirs.
    fn tensors(self, kind: Kind, config: &Conv1dConfig) -> Vec<(String, String)> {
        let same = |names: &[&str]| -> Vec<(String, String)> {
            names.iter().map(|&name| (name.to_owned(), name.to_owned())).collect()
        };
        match kind {
            Kind::Snake => same(&["alpha"]),
            Kind::Lstm => {
                let numbers = 0..config.lstm_layers;
                let of = |number| {
                    ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
                        .map(|name| format!("{name}_l{number}"))
                };
                numbers.flat_map(of).map(|name| (name.clone(), name)).collect()
            }
            Kind::Conv | Kind::ConvTranspose if self == Self::Encodec => {
                same(&["weight", "weight_g", "weight_v", "bias"])
            }
            Kind::Conv | Kind::ConvTranspose => {
                let normed = [("weight_g", "original0"), ("weight_v", "original1")];
                let normed = normed
                    .map(|(ours, end)| (ours.to_owned(), format!("parametrizations.weight.{end}")));
                same(&["weight", "bias"]).into_iter().chain(normed).collect()
            }
        }
    }
}

/// A layer of a chain, or a residual block: every source counts in this order.
struct Place {
    ours: String,
    dac: String,
    what: What,
}

enum What {
    One(Kind),
    Unit,
}

#[derive(Clone, Copy)]
enum Kind {
    Conv,
    ConvTranspose,
    Snake,
    Lstm,
}

/// A layer within a place: ends of names.
struct Layer {
    ours: &'static str,
    encodec: &'static str,
    dac: Option<&'static str>,
    kind: Kind,
}

impl Place {
    fn one(kind: Kind, ours: impl Into<String>, dac: impl Into<String>) -> Self {
        Self { ours: ours.into(), dac: dac.into(), what: What::One(kind) }
    }

    fn unit(ours: String, dac: String) -> Self {
        Self { ours, dac, what: What::Unit }
    }

    fn layers(&self, config: &Conv1dConfig) -> Vec<Layer> {
        let layer = |kind, ours, encodec, dac| Layer { ours, encodec, dac, kind };
        match self.what {
            What::One(kind) => vec![layer(kind, "", "", Some(""))],
            What::Unit => {
                let mut layers = vec![
                    layer(Kind::Snake, ".snake1", ".block.0", Some(".snake1")),
                    layer(Kind::Conv, ".conv1", ".block.1", Some(".conv1")),
                    layer(Kind::Snake, ".snake2", ".block.2", Some(".snake2")),
                    layer(Kind::Conv, ".conv2", ".block.3", Some(".conv2")),
                ];
                if config.shortcut == Shortcut::Conv {
                    layers.push(layer(Kind::Conv, ".shortcut", ".shortcut", None));
                }
                layers
            }
        }
    }
}

fn encoder(config: &Conv1dConfig) -> Vec<Place> {
    let mut places = vec![Place::one(Kind::Conv, "conv_in", "conv1")];
    for level in 0..config.ratios.len() {
        push_units(&mut places, config, &format!("down.{level}"), level);
        let (ours, dac) = (format!("down.{level}"), format!("block.{level}"));
        places.push(Place::one(Kind::Snake, format!("{ours}.snake"), format!("{dac}.snake1")));
        places.push(Place::one(Kind::Conv, format!("{ours}.conv"), format!("{dac}.conv1")));
    }
    if config.lstm_layers > 0 {
        places.push(Place::one(Kind::Lstm, "lstm", ""));
    }
    places.push(Place::one(Kind::Snake, "snake_out", "snake1"));
    places.push(Place::one(Kind::Conv, "conv_out", "conv2"));
    places
}

fn decoder(config: &Conv1dConfig) -> Vec<Place> {
    let mut places = vec![Place::one(Kind::Conv, "conv_in", "conv1")];
    if config.lstm_layers > 0 {
        places.push(Place::one(Kind::Lstm, "lstm", ""));
    }
    for level in 0..config.ratios.len() {
        let (ours, dac) = (format!("up.{level}"), format!("block.{level}"));
        places.push(Place::one(Kind::Snake, format!("{ours}.snake"), format!("{dac}.snake1")));
        let (ours, dac) = (format!("{ours}.conv"), format!("{dac}.conv_t1"));
        places.push(Place::one(Kind::ConvTranspose, ours, dac));
        push_units(&mut places, config, &format!("up.{level}"), level);
    }
    places.push(Place::one(Kind::Snake, "snake_out", "snake1"));
    places.push(Place::one(Kind::Conv, "conv_out", "conv2"));
    places
}

fn push_units(places: &mut Vec<Place>, config: &Conv1dConfig, ours: &str, level: usize) {
    for number in 0..config.residual_layers {
        let dac = format!("block.{level}.res_unit{}", number + 1);
        places.push(Place::unit(format!("{ours}.residual.{number}"), dac));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand, for two ratios, one residual block and an LSTM: the encoder's layers are a convolution, a block, ELU and
    /// a strided convolution for each ratio, the LSTM, ELU, and the last convolution.
    #[test]
    fn layers_are_counted_in_the_order_of_the_sources() {
        let config = Conv1dConfig {
            ratios: vec![3, 2],
            lstm_layers: 2,
            shortcut: Shortcut::Conv,
            ..Conv1dConfig::default()
        };
        for (source, ours, theirs) in [
            (Source::Encodec, "encoder.conv_in.weight_g", "encoder.model.0.conv.conv.weight_g"),
            (
                Source::TransformersEncodec,
                "encoder.down.1.residual.0.conv2.weight_v",
                "encoder.layers.4.block.3.conv.parametrizations.weight.original1",
            ),
            (
                Source::Encodec,
                "encoder.down.1.residual.0.shortcut.bias",
                "encoder.model.4.shortcut.conv.conv.bias",
            ),
            (
                Source::TransformersEncodec,
                "encoder.lstm.bias_hh_l1",
                "encoder.layers.7.lstm.bias_hh_l1",
            ),
            (Source::Encodec, "encoder.conv_out.bias", "encoder.model.9.conv.conv.bias"),
            (
                Source::Encodec,
                "decoder.up.1.conv.weight_v",
                "decoder.model.6.convtr.convtr.weight_v",
            ),
            (
                Source::TransformersDac,
                "decoder.up.1.residual.0.snake2.alpha",
                "decoder.block.1.res_unit1.snake2.alpha",
            ),
            (Source::TransformersDac, "decoder.up.0.conv.weight", "decoder.block.0.conv_t1.weight"),
        ] {
            assert_eq!(source.theirs(ours, &config).as_deref(), Some(theirs));
            assert_eq!(source.ours(theirs, &config).as_deref(), Some(ours));
        }
        for (source, strange) in [
            (Source::TransformersDac, "encoder.lstm.bias_hh_l0"),
            (Source::TransformersDac, "encoder.down.0.residual.0.shortcut.bias"),
            (Source::Encodec, "encoder.down.0.snake.alpha"),
            (Source::Encodec, "encoder.down.2.conv.bias"),
            (Source::Encodec, "encoder.lstm.weight_ih_l2"),
        ] {
            assert_eq!(source.theirs(strange, &config), None, "{strange}");
        }
        assert_eq!(Source::Encodec.ours("quantizer.vq.layers.0._codebook.embed", &config), None);
    }
}
