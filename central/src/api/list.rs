//! Lists as IoT Central gives them: `value`, and `nextLink` when there may be more.

use serde::Serialize;
use utoipa::ToSchema;

use super::links::ListAddress;

/// A page of a list, or a whole list that has no pages.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    value: Vec<T>,
    /// The address of the next page, when there may be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_link: Option<String>,
}

impl<T> Page<T> {
    /// A page of up to `limit` items, with the link to the next one when it is full. `position` is where the next page begins: behind the
    /// last item.
    pub(super) fn new(
        value: Vec<T>,
        limit: u32,
        address: &ListAddress,
        position: impl Fn(&T) -> String,
    ) -> Self {
        // Whether more follow is not looked up: behind a list that ends with a full page is an empty one.
        let is_full = u32::try_from(value.len()) == Ok(limit);
        let next_link = value.last().filter(|_| is_full).map(|last| address.after(&position(last)));
        Self { value, next_link }
    }

    /// A page with the link to the next one, which begins at `position`, when there may be one.
    pub(super) fn continued(value: Vec<T>, address: &ListAddress, position: Option<String>) -> Self {
        Self { value, next_link: position.map(|position| address.after(&position)) }
    }

    /// All there is.
    pub(super) fn whole(value: Vec<T>) -> Self {
        Self { value, next_link: None }
    }
}
