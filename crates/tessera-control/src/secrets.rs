//! Variables of the launcher's environment that nobody else is to see.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Values by the names of the variables. They stand in a welcome on the control connection, and nowhere else.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secrets(pub BTreeMap<String, String>);

impl Secrets {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Names alone: what is printed may be kept.
impl fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_not_printed() {
        let secrets = Secrets([("API_TOKEN".to_owned(), "hidden".to_owned())].into());
        assert_eq!(format!("{secrets:?}"), r#"{"API_TOKEN"}"#);
        assert_eq!(serde_json::to_string(&secrets).unwrap(), r#"{"API_TOKEN":"hidden"}"#);
    }
}
