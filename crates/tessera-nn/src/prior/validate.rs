//! What is wrong with a `[prior]` table, in one line that names the key.

use super::codes::Codes;
use super::config::{AutoregressiveConfig, Levels, NetworkConfig, Positions, PriorConfig, dropped};

impl PriorConfig {
    /// What is wrong with the values for such codes, if anything.
    ///
    /// # Errors
    ///
    /// One line that names the key and says what it may be.
    pub fn validate(&self, codes: &Codes) -> Result<(), String> {
        codes.validate()?;
        self.network().validate(codes)?;
        match self {
            Self::Autoregressive(config) => config.validate(codes),
            Self::Masked(config) => check_training(config.hide_class, config.label_smoothing),
        }
    }
}

impl NetworkConfig {
    fn validate(&self, codes: &Codes) -> Result<(), String> {
        check_range("network.width", self.width, 8192)?;
        check_range("network.layers", self.layers, 96)?;
        check_range("network.heads", self.heads, 8192)?;
        if self.width % self.heads != 0 {
            return Err(format!(
                "prior.network.heads should divide prior.network.width, {}, found {}",
                self.width, self.heads
            ));
        }
        if !(0..=65536).contains(&self.hidden) {
            return Err(format!(
                "prior.network.hidden should be 0 (by the width) to 65536, found {}",
                self.hidden
            ));
        }
        if !(0.0..1.0).contains(&self.dropout) || dropped(self.dropout) > 255 {
            return Err(format!(
                "prior.network.dropout should be at least 0 and below 1, found {}",
                self.dropout
            ));
        }
        let (head_dim, axes) = (self.head_dim(), codes.levels[0].axes.len());
        // A quarter of the pairs is the least that an axis may get.
        let least = [2, 4, 8][axes - 1];
        if self.positions == Positions::Rotary && (head_dim % 2 != 0 || head_dim < least) {
            return Err(format!(
                "prior.network.positions = \"rotary\" on {axes} axes needs heads of an even number of channels, {least} \
                 or more, found {head_dim} (prior.network.width / prior.network.heads)"
            ));
        }
        Ok(())
    }
}

impl AutoregressiveConfig {
    fn validate(&self, codes: &Codes) -> Result<(), String> {
        check_training(self.hide_class, self.label_smoothing)?;
        check_range("inner_layers", self.inner_layers, 96)?;
        if self.levels != Levels::Flatten && !codes.is_one_grid() {
            return Err(
                "prior.levels should be \"flatten\" for the levels of a hierarchy, which are not of one grid"
                    .to_owned(),
            );
        }
        let tokens = codes.num_tokens();
        if !(0..tokens).contains(&self.prefix) {
            return Err(format!(
                "prior.prefix should be 0 to {}, one less than the tokens of a sample, found {}",
                tokens - 1,
                self.prefix
            ));
        }
        if !(self.keep_input > 0.0 && self.keep_input <= 1.0) {
            return Err(format!(
                "prior.keep_input should be above 0 and at most 1, found {}",
                self.keep_input
            ));
        }
        self.validate_factors(codes)
    }

    fn validate_factors(&self, codes: &Codes) -> Result<(), String> {
        let factors = &self.factors;
        if factors.is_empty() {
            return Ok(());
        }
        if factors.len() < 2 || !factors.iter().all(|bits| (1..=24).contains(bits)) {
            return Err(format!(
                "prior.factors should be empty, or two or more numbers of bits from 1 to 24, found {factors:?}"
            ));
        }
        if self.levels == Levels::Delay {
            return Err(
                "prior.factors should be empty with prior.levels = \"delay\": take \"flatten\" or \"depth\""
                    .to_owned(),
            );
        }
        let bits: i64 = factors.iter().sum();
        let is_split = |codes: i64| bits < 62 && codes == 1 << bits;
        if let Some(level) = codes.levels.iter().find(|level| !is_split(level.num_codes)) {
            return Err(format!(
                "prior.factors are {bits} bits together, which is not {} codes: set them so that 2 to the power of their \
                 sum is, or leave them out",
                level.num_codes
            ));
        }
        Ok(())
    }
}

fn check_training(hide_class: f64, label_smoothing: f64) -> Result<(), String> {
    if !(0.0..=1.0).contains(&hide_class) {
        return Err(format!("prior.hide_class should be from 0 to 1, found {hide_class}"));
    }
    if !(0.0..1.0).contains(&label_smoothing) {
        return Err(format!(
            "prior.label_smoothing should be at least 0 and below 1, found {label_smoothing}"
        ));
    }
    Ok(())
}

fn check_range(key: &str, value: i64, most: i64) -> Result<(), String> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(format!("prior.{key} should be from 1 to {most}, found {value}"))
}
