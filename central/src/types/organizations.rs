//! The organizations of devices and manifests. central has one organization, the whole site: ids of others are kept for scripts and
//! for filters, and hide nothing from anybody.

use serde::{Deserialize, Serialize};

const ID_BYTES_MAX: usize = 48;

/// What something belongs to: nothing, which is the whole site, or one organization.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Organizations(Vec<String>);

/// A list that IoT Central would not take either.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOrganizations {
    #[error("found {0} organizations; write one at the most")]
    TooMany(usize),
    #[error(
        "found `{0}`; an organization's id has 1 to {ID_BYTES_MAX} of a-z, 0-9 and -, with no - at its ends"
    )]
    Id(String),
}

impl TryFrom<Vec<String>> for Organizations {
    type Error = InvalidOrganizations;

    fn try_from(ids: Vec<String>) -> Result<Self, InvalidOrganizations> {
        if ids.len() > 1 {
            return Err(InvalidOrganizations::TooMany(ids.len()));
        }
        match ids.iter().find(|id| !is_id(id)) {
            Some(id) => Err(InvalidOrganizations::Id(id.clone())),
            None => Ok(Self(ids)),
        }
    }
}

impl Organizations {
    /// Whether it belongs to the whole site.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether a text is the id of an organization.
pub(crate) fn is_id(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=ID_BYTES_MAX).contains(&text.len())
        && text.chars().all(is_inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_organization_with_an_id_of_iot_central_is_taken_and_nothing_else() {
        let read = |json: &str| serde_json::from_str::<Organizations>(json);
        for json in ["[]", r#"["seattle"]"#, r#"["a"]"#, r#"["north-2"]"#] {
            assert_eq!(serde_json::to_string(&read(json).unwrap()).unwrap(), json);
        }
        let long = format!("[\"{}\"]", "a".repeat(49));
        for json in [r#"["a","b"]"#, r#"[""]"#, r#"["-a"]"#, r#"["a-"]"#, r#"["A"]"#, r#"["a b"]"#, &long] {
            assert!(read(json).is_err(), "{json}");
        }
    }
}
