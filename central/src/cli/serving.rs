//! Requests of commands to the central that serves.

use central::clock;
use central::store::tokens;
use central::token::{self, Role, TokenName};

use super::data::{DataArgs, in_store};

/// Asks the central that serves this data directory. Whoever reads the directory may ask; the API knows nobody without a token.
pub(super) fn ask_serving(
    data: &DataArgs,
    role: Role,
    ask: impl FnOnce(std::net::SocketAddr, &str) -> Result<serde_json::Value, central::ask::AskError>,
) -> anyhow::Result<serde_json::Value> {
    // So that the token ends also when this command is killed before it deletes it.
    const WITHIN_MS: u64 = 60_000;
    let config = data.config_for_existing()?;
    let now_ms = clock::now_ms();
    let name = TokenName::of_command_line();
    let new = token::create(&config.hostname, &name, role, now_ms, now_ms + WITHIN_MS);
    let (hash, grant) = (new.hash, new.grant);
    in_store(&config, move |c| tokens::insert(c, &hash, &grant))?;
    let answer = ask(config.http.listen, &new.line);
    let name = name.as_str().to_owned();
    // Before the answer is looked at: the token goes also when the request failed.
    in_store(&config, move |c| tokens::delete(c, &name))?;
    Ok(answer?)
}
