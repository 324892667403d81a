//! Secrets that are known by who made them: tokens with the prefix of a service, addresses that are secrets, and options of programs
//! that take a password.

use std::ops::Range;

use schemas::redaction::REDACTED;

/// What tokens of services begin with, and how many characters follow at least.
const TOKENS: &[(&str, usize)] = &[
    ("AKIA", 16),
    ("ASIA", 16),
    ("ghp_", 20),
    ("gho_", 20),
    ("ghu_", 20),
    ("ghs_", 20),
    ("ghr_", 20),
    ("github_pat_", 20),
    ("glpat-", 16),
    ("xoxa-", 8),
    ("xoxb-", 8),
    ("xoxe-", 8),
    ("xoxp-", 8),
    ("xoxr-", 8),
    ("xoxs-", 8),
    ("xapp-", 8),
    ("AIza", 30),
    ("sk_live_", 16),
    ("rk_live_", 16),
    ("npm_", 30),
    ("dop_v1_", 30),
];

/// Addresses whose rest lets anybody write.
const HOOKS: &[&str] = &[
    "hooks.slack.com/services/",
    "hooks.slack.com/workflows/",
    "hooks.slack.com/triggers/",
    "discord.com/api/webhooks/",
    "discordapp.com/api/webhooks/",
    ".webhook.office.com/",
    "api.telegram.org/bot",
];

/// Position of the secret that an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// The next word, or the rest of the option's own.
    Secret,
    /// The rest of the option's own word: alone it asks for one.
    Attached,
    /// As [`Takes::Secret`], behind a separator: `user:SECRET`.
    Behind(char),
}

/// How programs' names begin, their option, and the position of its secret.
const OPTIONS: &[(&str, &str, Takes)] = &[
    ("curl", "-u", Takes::Behind(':')),
    ("curl", "-U", Takes::Behind(':')),
    ("curl", "--user", Takes::Behind(':')),
    ("curl", "--proxy-user", Takes::Behind(':')),
    ("http", "-a", Takes::Behind(':')),
    ("mysql", "-p", Takes::Attached),
    ("mariadb", "-p", Takes::Attached),
    ("7z", "-p", Takes::Attached),
    ("sshpass", "-p", Takes::Secret),
    ("login", "-p", Takes::Secret),
    ("mosquitto_", "-P", Takes::Secret),
    ("ipmitool", "-P", Takes::Secret),
    ("redis-cli", "-a", Takes::Secret),
    ("ldap", "-w", Takes::Secret),
    ("smbclient", "-U", Takes::Behind('%')),
    ("snmp", "-c", Takes::Secret),
    ("snmp", "-A", Takes::Secret),
    ("snmp", "-X", Takes::Secret),
];

/// Programs of which all that follows on the line is hidden.
const ALL_SECRET: &[&str] = &["wpa_passphrase", "chpasswd"];

/// Hides tokens of services, and the rest of addresses that are secrets. `None`: there are none.
pub(super) fn hide_tokens(text: &str) -> Option<String> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let mut secrets: Vec<Range<usize>> = Vec::new();
    for (prefix, length_min) in TOKENS {
        for (at, _) in text.match_indices(prefix) {
            let behind = at + prefix.len();
            let length = text[behind..].find(|c| !is_token(c)).unwrap_or(text.len() - behind);
            // Within a longer name the prefix means nothing.
            if length >= *length_min && !text[..at].ends_with(|c: char| c.is_ascii_alphanumeric()) {
                secrets.push(at..behind + length);
            }
        }
    }
    for hook in HOOKS {
        for (at, _) in text.match_indices(hook) {
            let behind = at + hook.len();
            let ends = |c: char| c.is_whitespace() || "\"'`<>".contains(c);
            let length = text[behind..].find(ends).unwrap_or(text.len() - behind);
            if length > 0 {
                secrets.push(behind..behind + length);
            }
        }
    }
    without(text, secrets)
}

/// Hides what options of programs take. `None`: there are none.
pub(super) fn hide_options(text: &str) -> Option<String> {
    if !text.contains(" -") && !ALL_SECRET.iter().any(|program| text.contains(program)) {
        return None;
    }
    let mut secrets = Vec::new();
    let mut line_start = 0;
    // A command ends there, and with it the options of its program.
    for line in text.split_inclusive(['\n', ';', '|']) {
        secrets.extend(of_line(line).into_iter().map(|at| at.start + line_start..at.end + line_start));
        line_start += line.len();
    }
    without(text, secrets)
}

fn of_line(line: &str) -> Vec<Range<usize>> {
    let words: Vec<Range<usize>> = words(line);
    let text = |word: &Range<usize>| line[word.clone()].trim_matches(['"', '\'', '`', '(']);
    let mut secrets = Vec::new();
    let mut options: Vec<&(&str, &str, Takes)> = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let program = text(word).rsplit('/').next().unwrap_or("");
        if ALL_SECRET.contains(&program)
            && let Some(next) = words.get(index + 1)
        {
            secrets.push(next.start..line.trim_end().len());
            return secrets;
        }
        options.extend(OPTIONS.iter().filter(|(of, ..)| program.starts_with(of)));
        for (_, option, takes) in &options {
            let written = &line[word.clone()];
            let Some(attached) = written.strip_prefix(option) else { continue };
            // `--username` is not `--user`, and long options follow one dash too: `-progress` is not `-p`.
            let is_long = option.starts_with("--");
            let is_own = !attached.is_empty() && (!is_long || attached.starts_with('='));
            let own = is_own
                .then_some(word.end - attached.len() + usize::from(attached.starts_with('='))..word.end);
            let next = (attached.is_empty() && *takes != Takes::Attached)
                .then(|| words.get(index + 1).cloned())
                .flatten();
            let Some(value) = own.or(next) else { continue };
            match takes {
                Takes::Behind(separator) => {
                    if let Some(at) = line[value.clone()].find(*separator) {
                        secrets.push(value.start + at + separator.len_utf8()..value.end);
                    }
                }
                Takes::Secret | Takes::Attached => secrets.push(value),
            }
        }
    }
    secrets
}

fn words(line: &str) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut at = 0;
    for piece in line.split_inclusive(char::is_whitespace) {
        let word = piece.trim_end();
        if !word.is_empty() {
            words.push(at..at + word.len());
        }
        at += piece.len();
    }
    words
}

/// A text with the mark in place of these ranges, which may overlap.
fn without(text: &str, mut secrets: Vec<Range<usize>>) -> Option<String> {
    if secrets.is_empty() {
        return None;
    }
    // Of two secrets that begin together the longer one comes first and covers the other.
    secrets.sort_by_key(|secret| (secret.start, std::cmp::Reverse(secret.end)));
    let (mut shown, mut up_to) = (String::with_capacity(text.len()), 0);
    for secret in secrets {
        if secret.end <= up_to {
            continue;
        }
        if secret.start >= up_to {
            shown.push_str(&text[up_to..secret.start]);
            shown.push_str(REDACTED);
        }
        up_to = secret.end;
    }
    shown.push_str(&text[up_to..]);
    Some(shown)
}
