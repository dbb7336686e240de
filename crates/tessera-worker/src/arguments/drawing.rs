//! How codes are drawn: the options of all commands that draw.

use clap::{Args, ValueEnum};
use tessera_apply::{Filter, Guidance, GuidanceSchedule, Sampling};

/// How codes are drawn.
#[derive(Debug, Args)]
pub(crate) struct DrawingArguments {
    /// What logits are divided by, 0 or more; 0: the likeliest code, always.
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    temperature: f64,
    /// How many of the likeliest codes are left; 0: all.
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: i64,
    /// Codes are left, the likeliest first, as long as those before have less than this part together; above 0, at most 1.
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f64,
    /// Codes are left that have this part of the largest probability at least; from 0 to 1.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f64,
    /// What positive logits of codes that a sample has already are divided by, and negative ones multiplied by; 1: off.
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    repetition: f64,
    /// How much more a class counts than it does by itself: s of u + s (c - u), with logits c of the class and u of none;
    /// 1: off. The same as w = s - 1 of c + w (c - u).
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    guidance: f64,
    /// How guidance changes from the first token, or the first pass of a masked prior, to the last.
    #[arg(long, value_enum, default_value_t = Schedule::Constant)]
    guidance_schedule: Schedule,
    /// Passes of a masked prior, 1 or more.
    #[arg(long, value_name = "N", default_value_t = 12)]
    steps: i64,
    /// How much chance there is in which tokens a masked prior keeps, 0 or more.
    #[arg(long, value_name = "C", default_value_t = 4.5)]
    choice: f64,
}

/// How guidance changes.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Schedule {
    /// Not at all.
    Constant,
    /// From none to all of it, evenly.
    Linear,
    /// As a cosine of a power of the way, as RAR has it.
    Power,
}

impl DrawingArguments {
    /// The same in the words of a prior.
    pub(crate) fn sampling(&self) -> Sampling {
        let schedule = match self.guidance_schedule {
            Schedule::Constant => GuidanceSchedule::Constant,
            Schedule::Linear => GuidanceSchedule::Linear,
            Schedule::Power => GuidanceSchedule::Power,
        };
        let &Self { temperature, top_k, top_p, min_p, repetition, steps, choice, .. } = self;
        Sampling {
            filter: Filter { temperature, top_k, top_p, min_p, repetition },
            guidance: Guidance { scale: self.guidance, schedule, ..Guidance::default() },
            steps,
            choice,
        }
    }
}
