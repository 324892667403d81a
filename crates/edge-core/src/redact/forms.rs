//! Secrets in a text that are known by their form: `name=value`, addresses with passwords, private keys, tokens.

use std::borrow::Cow;

use schemas::redaction::REDACTED;

use super::names::{is_combining, is_secret_name};
use super::tokens::{hide_options, hide_tokens};

/// Hides what has the form of a secret in a text; borrowed when nothing has.
pub(super) fn hide_forms(text: &str) -> Cow<'_, str> {
    let mut shown = Cow::Borrowed(text);
    for hide in [hide_private_keys, hide_user_information, hide_tokens, hide_options, hide_pairs, hide_words]
    {
        if let Some(hidden) = hide(&shown) {
            shown = Cow::Owned(hidden);
        }
    }
    shown
}

fn hide_private_keys(text: &str) -> Option<String> {
    const BEGIN: &str = "-----BEGIN ";
    const END: &str = "-----END ";
    let (mut shown, mut rest, mut is_changed) = (String::new(), text, false);
    while let Some(start) = rest.find(BEGIN) {
        let inner = &rest[start + BEGIN.len()..];
        if inner.split("-----").next().is_some_and(|label| label.contains("PRIVATE KEY")) {
            is_changed = true;
            shown.push_str(&rest[..start]);
            shown.push_str(REDACTED);
            let end = inner.find(END).map(|at| &inner[at + END.len()..]);
            // A key whose end is missing is hidden to the end of the text.
            rest = end.and_then(|end| end.split_once("-----")).map_or("", |(_, after)| after);
        } else {
            shown.push_str(&rest[..start + BEGIN.len()]);
            rest = inner;
        }
    }
    is_changed.then(|| shown + rest)
}

/// `scheme://user:password@host`, and `scheme://token@host`.
fn hide_user_information(text: &str) -> Option<String> {
    let (mut shown, mut rest, mut is_changed) = (String::new(), text, false);
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        // Passwords with slashes are written unescaped too: a `@` anywhere in the address counts.
        let ends = |c: char| c.is_whitespace() || "\"'`<>".contains(c);
        let authority = &after[..after.find(ends).unwrap_or(after.len())];
        if let Some((user, host)) = authority.rsplit_once('@') {
            is_changed = true;
            if let Some((name, _)) = user.split_once(':') {
                shown.push_str(name);
                shown.push(':');
            }
            shown.push_str(REDACTED);
            shown.push('@');
            shown.push_str(host);
        } else {
            shown.push_str(authority);
        }
        rest = &after[authority.len()..];
    }
    is_changed.then(|| shown + rest)
}

/// `name=value`, `"name": value` and `--name value` with a name of a secret: hidden to the end of the line, because a value
/// may hold blanks, quotes and separators; to the end of the text when the line has no value, or one that spans lines.
fn hide_pairs(text: &str) -> Option<String> {
    // Most texts have no pair at all.
    if !text.contains(['=', ':', '%', '<']) && !text.contains("--") {
        return None;
    }
    let (mut shown, mut rest, mut is_changed) = (String::new(), text, false);
    while let Some(separator) = next_separator(rest) {
        let before = &rest[..separator.start];
        let name_start = before
            .rfind(|c: char| !is_name(c))
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let name = &before[name_start..];
        // A parameter of an address; elsewhere a code says why a program ended.
        let is_parameter = before[..name_start].ends_with(['?', '&']);
        let is_secret = is_secret_name(name) || (is_parameter && name.eq_ignore_ascii_case("code"));
        shown.push_str(&rest[..separator.end]);
        rest = &rest[separator.end..];
        if !is_secret || rest.trim().is_empty() {
            continue;
        }
        let line_end = rest.find(['\r', '\n']).unwrap_or(rest.len());
        let value = rest[..line_end].trim();
        is_changed = true;
        let spans_lines = value.is_empty() || value.starts_with(['{', '[', '|', '>']);
        shown.push_str(REDACTED);
        rest = if spans_lines { "" } else { &rest[line_end..] };
    }
    is_changed.then(|| shown + rest)
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || is_combining(c) || "_-.$".contains(c)
}

/// From the end of the next name to its value: `=`, `:`, `%3D` or `%3A` with the characters around it, or the blank after
/// `--name`.
fn next_separator(text: &str) -> Option<std::ops::Range<usize>> {
    for (at, character) in text.char_indices() {
        let width = match character {
            '=' | ':' => 1,
            // `<password>`: the name of an element.
            '>' if text[..at]
                .rsplit(|c| !is_name(c))
                .next()
                .is_some_and(|name| text[..at - name.len()].ends_with('<')) =>
            {
                1
            }
            '%' if text.get(at..at + 3).is_some_and(|code| ["%3D", "%3d", "%3A", "%3a"].contains(&code)) => 3,
            ' ' => {
                let word = text[..at].rsplit(char::is_whitespace).next().unwrap_or("");
                if !word.starts_with("--") {
                    continue;
                }
                1
            }
            _ => continue,
        };
        // `"name" : value`, and inside a text `\"name\": value`.
        let name_end = text[..at].trim_end_matches(['"', '\'', '`', '\\', ' ', '\t']).len();
        return Some(name_end..at + width);
    }
    None
}

/// JSON Web Tokens, and what follows `Bearer` and `Basic`.
fn hide_words(text: &str) -> Option<String> {
    let is_scheme = |at: usize| {
        ["bearer", "basic"].iter().any(|scheme| {
            text.as_bytes()
                .get(at..at + scheme.len())
                .is_some_and(|word| word.eq_ignore_ascii_case(scheme.as_bytes()))
        })
    };
    if !text.contains("eyJ") && !text.match_indices(['b', 'B']).any(|(at, _)| is_scheme(at)) {
        return None;
    }
    let (mut shown, mut is_changed) = (String::with_capacity(text.len()), false);
    let mut must_hide = false;
    for piece in text.split_inclusive(|c: char| c.is_whitespace() || "\"'`,;&".contains(c)) {
        let word = piece.trim_end_matches(|c: char| c.is_whitespace() || "\"'`,;&".contains(c));
        // `basic` and `bearer` are ordinary English too: what follows is hidden only if it has the form of a token.
        let is_opaque = word.len() >= 8
            && word.contains(|c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '=');
        let is_web_token = word.len() > 20 && word.contains('.') && word.contains("eyJ");
        if is_web_token || (must_hide && is_opaque) {
            is_changed = true;
            shown.push_str(REDACTED);
            shown.push_str(&piece[word.len()..]);
        } else {
            shown.push_str(piece);
        }
        let word = word.rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or("");
        must_hide = word.eq_ignore_ascii_case("bearer") || word.eq_ignore_ascii_case("basic");
    }
    is_changed.then_some(shown)
}
