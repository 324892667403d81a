//! Parameters of lists: which page, and of some lists which items in which order.
//!
//! IoT Central's pages write the names with `$` and its API without: both are taken, one of them at a time.

use edge_core::error_chain::chain;
use serde::Deserialize;
use utoipa::IntoParams;

use super::error::ApiError;
use crate::store::selection::{InvalidSelection, ListText, Listed, Selection};

/// Items on a page when the client does not say.
const LIMIT_DEFAULT: u32 = 25;
const LIMIT_MAX: u32 = 100;

/// Which page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// `2022-10-31-preview`, `2022-07-31`, `2022-06-30-preview`, `2022-05-31`, `1.2-preview`, `1.1-preview` or `1.0`.
    #[serde(rename = "api-version")]
    #[allow(
        dead_code,
        reason = "checked for all paths at once, before the handler; here for the description"
    )]
    api_version: String,
    /// Items on a page, 1 to 100; 25 when left out.
    #[param(minimum = 1, maximum = 100)]
    maxpagesize: Option<u32>,
    /// Another name of `maxpagesize`.
    #[serde(rename = "$maxpagesize")]
    #[param(minimum = 1, maximum = 100)]
    odata_maxpagesize: Option<u32>,
    /// Another name of `maxpagesize`.
    #[serde(rename = "$top")]
    #[param(minimum = 1, maximum = 100)]
    top: Option<u32>,
    /// Where the page begins, as the `nextLink` of the page before says it.
    #[serde(rename = "$skiptoken")]
    skip_token: Option<String>,
}

/// Which items of a list, and in which order.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Conditions {
    /// A condition on the items in OData's syntax: `id eq 'press-1'`, with `eq`, `ne`, `lt`, `le`, `gt`, `ge`, `and`, `or`, `not`,
    /// parentheses, `contains(displayName,'press')` and `indexof(displayName,'press') ge 0`.
    filter: Option<String>,
    /// Another name of `filter`.
    #[serde(rename = "$filter")]
    odata_filter: Option<String>,
    /// A field, and `asc` or `desc` behind it; `id asc` when left out. `displayName desc` gives the last name first.
    orderby: Option<String>,
    /// Another name of `orderby`.
    #[serde(rename = "$orderby")]
    odata_orderby: Option<String>,
}

/// The one value of a parameter that has several names.
fn one<T>(
    named: impl IntoIterator<Item = (&'static str, Option<T>)>,
) -> Result<Option<(&'static str, T)>, ApiError> {
    let mut given = named.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let first = given.next();
    match (&first, given.next()) {
        (Some((first, _)), Some((second, _))) => {
            let why = format!("{second}: found beside {first}, which means the same; write one of them");
            Err(ApiError::bad_request("InvalidQuery", why))
        }
        _ => Ok(first),
    }
}

impl Paging {
    /// How many items to give.
    ///
    /// # Errors
    /// 400 outside 1 to 100.
    pub fn limit(&self) -> Result<u32, ApiError> {
        let named =
            [("maxpagesize", self.maxpagesize), ("$maxpagesize", self.odata_maxpagesize), ("$top", self.top)];
        match one(named)? {
            None => Ok(LIMIT_DEFAULT),
            Some((_, limit)) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
            Some((name, limit)) => {
                let why = format!("{name}: found {limit}; write 1 to {LIMIT_MAX}");
                Err(ApiError::bad_request("InvalidQuery", why))
            }
        }
    }

    /// After which id the page begins.
    pub fn after(&self) -> String {
        self.skip_token.clone().unwrap_or_default()
    }
}

impl Conditions {
    /// What to read from a table.
    ///
    /// # Errors
    /// 400 with the parameter that is wrong.
    pub(super) fn selection(&self, paging: &Paging, listed: &Listed) -> Result<Selection, ApiError> {
        let filter = one([("filter", self.filter.as_deref()), ("$filter", self.odata_filter.as_deref())])?;
        let order = one([("orderby", self.orderby.as_deref()), ("$orderby", self.odata_orderby.as_deref())])?;
        let text = ListText {
            filter: filter.map(|(_, filter)| filter),
            order: order.map(|(_, order)| order),
            skip_token: paging.skip_token.as_deref(),
        };
        let wrong =
            |error: InvalidSelection| ApiError::bad_request("InvalidQuery", chain(&error).to_string());
        Selection::parse(text, paging.limit()?, listed).map_err(wrong)
    }
}
