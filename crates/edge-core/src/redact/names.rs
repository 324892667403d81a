//! Names of fields that hold secrets.

/// Parts of a name that are secret wherever they stand in it, written without separators.
const SECRET_PARTS: &[&str] = &[
    "password",
    "passwort",
    "kennwort",
    "passwd",
    "pwd",
    "passphrase",
    "passcode",
    "secret",
    "token",
    "credential",
    "connectionstring",
    "connstr",
    "sharedaccess",
    "authorization",
];
/// Parts of names that are secret on their own.
const SECRET_WORDS: &[&str] = &[
    "pw",
    "psk",
    "sas",
    "sig",
    "signature",
    "jwt",
    "auth",
    "auths",
    "bearer",
    "cookie",
    "cred",
    "creds",
    "pin",
    "puk",
    "otp",
    "totp",
    "hotp",
    "hmac",
    "seed",
    "mnemonic",
    "community",
    "webhook",
    "webhooks",
    "dsn",
    "pfx",
    "license",
    "licence",
];
/// Whole names that are secret, written without separators; in longer names the same parts say when somebody came, for example.
const SECRET_NAMES: &[&str] = &["session", "sessionid", "sid", "login", "p12"];
/// What makes the `code` behind it in the same name a secret: `unlockCode`. Alone a code says why a program ended.
const CODE_STEMS: &[&str] =
    &["unlock", "access", "activation", "recovery", "verification", "pairing", "security", "setup", "backup"];
/// Ends of names that are secret: `apikey`, `DBPASS`.
const SECRET_ENDS: &[&str] = &["key", "keys", "pass"];
/// What precedes such an end, in the same part of the name or in another one, and makes it harmless: `publicKey`, `bypass`.
const HARMLESS_STEMS: &[&str] = &[
    "public",
    "partition",
    "routing",
    "sort",
    "foreign",
    "message", // keys
    "mon",
    "tur",
    "don",
    "hoc",
    "joc",
    "whis",
    "hot", // words
    "by",
    "com",
    "sur",
    "tres",
    "over",
    "under",
    "low",
    "high",
    "band",
];
/// Names with a secret part that are none.
const PUBLIC_NAMES: &[&str] = &["skiptoken"];

/// Returns true if a field of this name holds a secret.
pub fn is_secret_name(name: &str) -> bool {
    let plain = letters(name);
    if PUBLIC_NAMES.contains(&plain.as_str()) {
        return false;
    }
    if SECRET_NAMES.contains(&plain.as_str()) {
        return true;
    }
    let words = words(name);
    if words.windows(2).any(|pair| pair[1] == "code" && CODE_STEMS.contains(&pair[0].as_str())) {
        return true;
    }
    let is_harmless = |stem: &str| HARMLESS_STEMS.contains(&stem);
    let ends_secret = |word: &str| {
        let stem = SECRET_ENDS.iter().find_map(|end| word.strip_suffix(end));
        stem.is_some_and(|stem| {
            !is_harmless(stem) && (!stem.is_empty() || !words.iter().any(|word| is_harmless(word)))
        })
    };
    SECRET_PARTS.iter().any(|part| plain.contains(part))
        || words.iter().any(|word| SECRET_WORDS.contains(&word.as_str()) || ends_secret(word))
}

/// A name without separators and case.
pub(super) fn letters(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// The parts of `camelCase`, `snake_case`, `kebab-case` and `HTTPServer`, in lower case and without digits at their ends.
fn words(name: &str) -> Vec<String> {
    let characters: Vec<char> = name.chars().collect();
    let mut words = vec![String::new()];
    for (at, character) in characters.iter().enumerate() {
        let follows_lower = at > 0 && characters[at - 1].is_ascii_lowercase();
        let leads_lower = at > 0 && characters.get(at + 1).is_some_and(char::is_ascii_lowercase);
        if !character.is_ascii_alphanumeric()
            || (character.is_ascii_uppercase() && (follows_lower || leads_lower))
        {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| character.is_ascii_alphanumeric()) {
            word.push(character.to_ascii_lowercase());
        }
    }
    words.iter().map(|word| word.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned()).collect()
}
