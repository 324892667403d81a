//! A tile of the overview that a device template gives its devices.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Tiles of one overview.
pub const TILES_MAX: usize = 60;
/// Characters of a title, as of a display name.
const TITLE_MAX: usize = 148;
/// Characters of the name of a value.
const NAME_MAX: usize = 512;

/// How a tile shows its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum TileKind {
    /// The last value with its age, and its course as a small line where it is a number.
    LastValue,
    /// Numbers over time.
    Chart,
    /// One number made of those of the range.
    Kpi,
    /// The last value as a state, and what it was before over time.
    State,
}

/// How one number is made of those of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum TileAggregate {
    Mean,
    Min,
    Max,
}

/// A tile: what it shows, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct OverviewTile {
    pub kind: TileKind,
    /// The name of the value that devices send.
    #[schema(min_length = 1, max_length = 512)]
    pub name: String,
    /// The component that sends it; the device itself when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub component: Option<String>,
    /// The template's name of the value when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false, min_length = 1, max_length = 148)]
    pub title: Option<String>,
    /// Of a `kpi`; `mean` when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub aggregate: Option<TileAggregate>,
}

/// Why a list of tiles is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TileError {
    #[error("tiles: found {0}; write {TILES_MAX} at the most")]
    TooMany(usize),
    #[error("tiles.{at}.{field}: found {found} characters; write 1 to {most}")]
    Length { at: usize, field: &'static str, found: usize, most: usize },
    #[error("tiles.{at}.aggregate: only a kpi has one")]
    Aggregate { at: usize },
}

/// Checks what the types do not.
///
/// # Errors
/// [`TileError`] for the first fault.
pub fn check(tiles: &[OverviewTile]) -> Result<(), TileError> {
    if tiles.len() > TILES_MAX {
        return Err(TileError::TooMany(tiles.len()));
    }
    for (at, tile) in tiles.iter().enumerate() {
        let texts = [
            ("name", Some(&tile.name), NAME_MAX),
            ("component", tile.component.as_ref(), NAME_MAX),
            ("title", tile.title.as_ref(), TITLE_MAX),
        ];
        for (field, text, most) in texts {
            let Some(found) = text.map(|text| text.chars().count()) else { continue };
            if found == 0 || found > most {
                return Err(TileError::Length { at, field, found, most });
            }
        }
        if tile.aggregate.is_some() && tile.kind != TileKind::Kpi {
            return Err(TileError::Aggregate { at });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile(name: &str) -> OverviewTile {
        OverviewTile { kind: TileKind::Kpi, name: name.into(), component: None, title: None, aggregate: None }
    }

    #[test]
    fn a_list_of_tiles_is_bounded_and_names_what_is_wrong() {
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&vec![tile("t"); TILES_MAX]), Ok(()));
        assert_eq!(check(&vec![tile("t"); TILES_MAX + 1]), Err(TileError::TooMany(TILES_MAX + 1)));
        let aggregate = Some(TileAggregate::Max);
        assert_eq!(check(&[OverviewTile { aggregate, ..tile("t") }]), Ok(()));
        let of_chart = OverviewTile { aggregate, kind: TileKind::Chart, ..tile("t") };
        assert_eq!(check(&[tile("t"), of_chart]), Err(TileError::Aggregate { at: 1 }));
        let length = |field, found, most| Err(TileError::Length { at: 0, field, found, most });
        assert_eq!(check(&[tile("")]), length("name", 0, 512));
        let long = Some("x".repeat(149));
        assert_eq!(check(&[OverviewTile { title: long, ..tile("t") }]), length("title", 149, 148));
        let component = Some(String::new());
        assert_eq!(check(&[OverviewTile { component, ..tile("t") }]), length("component", 0, 512));
    }
}
