//! Every configuration of `configs/` is one that trains; those of sweeps are looked at in `tidy.rs`.

use tessera_train::resolve;

use crate::root;

#[test]
fn every_configuration_resolves() {
    let configs = root().join("configs");
    let mut num_resolved = 0;
    for folder in [configs.join("quantizers"), configs] {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let resolved = resolve(Some(&path), [], &[], None);
                resolved.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                num_resolved += 1;
            }
        }
    }
    assert!(num_resolved >= 28, "{num_resolved}");
}
