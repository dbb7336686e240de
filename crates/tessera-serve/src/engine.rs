//! What the server asks of a model.

/// How new samples are drawn from the prior.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drawing {
    /// Logits are divided by it; above 0.
    pub temperature: f64,
    /// Only so many of the likeliest codes are drawn from; `None`: all.
    pub top_k: Option<u32>,
    /// Only the likeliest codes that have this probability together are drawn from; `None`: all.
    pub top_p: Option<f64>,
}

/// One new sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Seed of the request.
    pub seed: u64,
    /// Number of the sample among those of its seed.
    pub number: u64,
    /// Class of the sample; `None`: any, or the prior knows no classes.
    pub class: Option<u32>,
}

/// A model. It is built on the one inference thread, lives there and is dropped there.
///
/// No call gets more than [`tile`](crate::Description::tile) samples or an empty list, and each answer has as many
/// entries as the call, in the same order. Samples of several requests share a call, so a sample's answer may depend
/// neither on its place nor on its neighbours. An error is one line; every request of that call is answered with it.
pub trait Engine {
    /// Tokens of samples, which have the model's shape and little-endian values.
    ///
    /// # Errors
    ///
    /// One line that says why.
    fn encode(&mut self, samples: &[&[u8]]) -> Result<Vec<Vec<u32>>, String>;

    /// Samples that tokens stand for. All tokens were checked against their levels.
    ///
    /// # Errors
    ///
    /// One line that says why.
    fn decode(&mut self, tokens: &[&[u32]]) -> Result<Vec<Vec<u8>>, String>;

    /// Tokens of new samples, a function of `drawing` and of each `wanted` alone. Called only where the model has a prior.
    ///
    /// # Errors
    ///
    /// One line that says why.
    fn draw(&mut self, drawing: &Drawing, wanted: &[Wanted]) -> Result<Vec<Vec<u32>>, String>;
}
