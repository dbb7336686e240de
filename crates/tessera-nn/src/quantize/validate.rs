//! What a quantiser's configuration may be, and what is said when it is not.

use super::{Codebook, LookupFreeConfig, QuantizerConfig, ResidualConfig, VectorConfig};

/// Most codes of a level: their counts are summed over ranks in every step.
pub(super) const MAX_CODES: i64 = 1 << 20;

/// A rule, whether it holds, and what was found.
struct Check(bool, &'static str, f64);

impl QuantizerConfig {
    /// What is wrong with the values, if anything.
    ///
    /// # Errors
    ///
    /// One line that names the key and says what it may be.
    pub fn validate(&self) -> Result<(), String> {
        self.validate_at("model.quantizer")
    }

    /// The same where the table is another one.
    pub(crate) fn validate_at(&self, table: &str) -> Result<(), String> {
        let mut checks = vec![Check(
            (0..=65_536).contains(&self.latent_dim()),
            "latent_dim should be from 0 to 65536",
            self.latent_dim() as f64,
        )];
        match self {
            Self::Vector(config) => checks.extend(config.checks()),
            Self::SimVq(config) => {
                checks.extend(size(config.num_codes, config.code_dim));
                checks.push(weight(config.commitment, "commitment should be 0 or more"));
            }
            Self::FiniteScalar(config) => {
                let refused = super::fsq::check_levels(&config.levels);
                refused.map_err(|rule| format!("{table}.{rule}"))?;
            }
            Self::LookupFree(config) | Self::BinarySpherical(config) => {
                checks.extend(config.checks());
            }
            Self::Residual(config) => {
                let inner = format!("{table}.quantizer");
                config.quantizer.validate_at(&inner)?;
                config.validate_parts(table)?;
                let count = config.num_quantizers;
                checks.push(Check(
                    (1..=256).contains(&count),
                    "num_quantizers should be from 1 to 256",
                    count as f64,
                ));
                checks.push(Check(
                    (0.0..=1.0).contains(&config.dropout),
                    "dropout should be from 0 to 1",
                    config.dropout,
                ));
                checks.push(Check(
                    (1..=count).contains(&config.dropout_keep),
                    "dropout_keep should be from 1 to num_quantizers",
                    config.dropout_keep as f64,
                ));
            }
            Self::Grouped(config) => {
                config.quantizer.validate_at(&format!("{table}.quantizer"))?;
                let count = config.num_groups;
                checks.push(Check(
                    (1..=256).contains(&count),
                    "num_groups should be from 1 to 256",
                    count as f64,
                ));
            }
        }
        for Check(holds, rule, found) in checks {
            if !holds {
                return Err(format!("{table}.{rule}, found {found}"));
            }
        }
        Ok(())
    }
}

fn size(num_codes: i64, code_dim: i64) -> [Check; 2] {
    [
        Check(
            (2..=MAX_CODES).contains(&num_codes),
            "num_codes should be from 2 to 1048576",
            num_codes as f64,
        ),
        Check(
            (1..=65_536).contains(&code_dim),
            "code_dim should be from 1 to 65536",
            code_dim as f64,
        ),
    ]
}

fn weight(value: f64, rule: &'static str) -> Check {
    Check(value >= 0.0 && value.is_finite(), rule, value)
}

impl VectorConfig {
    fn checks(&self) -> Vec<Check> {
        let is_gradient = self.codebook == Codebook::Gradient;
        let mut checks = Vec::from(size(self.num_codes, self.code_dim));
        checks.extend([
            Check(
                (0.0..1.0).contains(&self.decay),
                "decay should be at least 0 and below 1",
                self.decay,
            ),
            Check(
                self.epsilon > 0.0 && self.epsilon <= 1.0,
                "epsilon should be above 0 and at most 1",
                self.epsilon,
            ),
            Check(
                (0.0..=1.0).contains(&self.replace_below),
                "replace_below should be from 0 to 1",
                self.replace_below,
            ),
            weight(self.commitment, "commitment should be 0 or more"),
            Check(
                is_gradient || !self.legacy_commitment,
                "legacy_commitment is for codebook = \"gradient\": an EMA codebook has no loss of \
                 its own",
                1.0,
            ),
            Check(
                self.kmeans_iterations <= 1000,
                "kmeans_iterations should be from 0 to 1000",
                self.kmeans_iterations as f64,
            ),
            weight(self.sample_temperature, "sample_temperature should be 0 or more"),
            weight(self.orthogonality, "orthogonality should be 0 or more"),
            Check(
                is_gradient || self.orthogonality == 0.0,
                "orthogonality is for codebook = \"gradient\": it does not move an EMA codebook",
                self.orthogonality,
            ),
        ]);
        checks.extend(entropies(self.entropy, self.diversity, self.entropy_temperature));
        checks
    }
}

fn entropies(entropy: f64, diversity: f64, temperature: f64) -> [Check; 3] {
    [
        weight(entropy, "entropy should be 0 or more"),
        weight(diversity, "diversity should be 0 or more"),
        Check(
            temperature > 0.0 && temperature.is_finite(),
            "entropy_temperature should be above 0",
            temperature,
        ),
    ]
}

impl LookupFreeConfig {
    fn checks(&self) -> Vec<Check> {
        let (bits, group) = (self.num_bits, self.group_bits);
        let mut checks = vec![
            Check((1..=20).contains(&bits), "num_bits should be from 1 to 20", bits as f64),
            Check((1..=14).contains(&group), "group_bits should be from 1 to 14", group as f64),
            weight(self.commitment, "commitment should be 0 or more"),
        ];
        checks.extend(entropies(self.entropy, self.diversity, self.entropy_temperature));
        checks
    }
}

impl ResidualConfig {
    /// What the quantisers in the row may be.
    fn validate_parts(&self, table: &str) -> Result<(), String> {
        let sizes = &self.num_codes;
        match &*self.quantizer {
            QuantizerConfig::Vector(_) | QuantizerConfig::SimVq(_) => {}
            QuantizerConfig::FiniteScalar(_) | QuantizerConfig::LookupFree(_) => {
                if self.shared_codebook {
                    return Err(format!(
                        "{table}.shared_codebook is for quantisers with a codebook: set it to false"
                    ));
                }
                if self.quantizer.latent_dim() != 0 {
                    return Err(format!(
                        "{table}.quantizer.latent_dim should be 0: set {table}.latent_dim, for one \
                         projection around all quantisers"
                    ));
                }
            }
            QuantizerConfig::BinarySpherical(_)
            | QuantizerConfig::Residual(_)
            | QuantizerConfig::Grouped(_) => {
                return Err(format!(
                    "{table}.quantizer.kind should be \"vector\", \"simvq\", \"fsq\" or \"lfq\": \
                     for a grouped residual quantiser put \"residual\" inside \"grouped\""
                ));
            }
        }
        let has_codebook =
            matches!(&*self.quantizer, QuantizerConfig::Vector(_) | QuantizerConfig::SimVq(_));
        if !sizes.is_empty() {
            let fits = has_codebook
                && !self.shared_codebook
                && sizes.len() as i64 == self.num_quantizers
                && sizes.iter().all(|size| (2..=MAX_CODES).contains(size));
            if !fits {
                return Err(format!(
                    "{table}.num_codes should be empty, or {} numbers from 2 to 1048576 for \
                     quantisers with codebooks of their own, found {sizes:?}",
                    self.num_quantizers
                ));
            }
        }
        Ok(())
    }
}
