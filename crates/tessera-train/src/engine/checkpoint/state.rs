//! The state of a training, by name.

use tch::Tensor;

use crate::engine::training::Training;

/// All state of a training under canonical names, in a fixed order; writing to a tensor restores
/// it.
pub fn state(training: &Training) -> Vec<(String, Tensor)> {
    let mut all = Vec::new();
    let parameters = training.task.parameters();
    for (name, tensor) in parameters.named_views() {
        all.push((name.to_owned(), tensor));
    }
    let moments = [
        ("optimizer.exp_avg", &training.optimizer.exp_avg),
        ("optimizer.exp_avg_sq", &training.optimizer.exp_avg_sq),
    ];
    for (prefix, flat) in moments {
        for (name, tensor) in parameters.trained_views(flat) {
            all.push((format!("{prefix}.{name}"), tensor));
        }
    }
    all.push(("optimizer.updates".to_owned(), training.optimizer.updates.shallow_clone()));
    if let Some(average) = &training.average {
        for (name, tensor) in average.named(parameters) {
            all.push((format!("average.{name}"), tensor));
        }
    }
    all.extend(training.task.state());
    for (name, tensor) in training.window.state() {
        all.push((name.to_owned(), tensor.shallow_clone()));
    }
    all
}
