//! Names of fields that hold secrets.

use std::borrow::Cow;

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
    "motdepasse", // the same in languages that write it with blanks
    "phrasedepasse",
    "palavrapasse",
];
/// `password` in other languages, without accents: secret anywhere in one part of a name. Not across parts:
/// `bypassOrder` holds a Norwegian one.
const SECRET_STEMS: &[&str] = &[
    "losungswort", // German
    "geheim",
    "passwuert",   // Luxembourgish
    "wachtwoord",  // Dutch
    "paswoord",    // Dutch
    "adgangskode", // Danish
    "kodeord",     // Danish
    "passord",     // Norwegian
    "losenord",    // Swedish
    "loesenord",   // Swedish
    "lykilord",    // Icelandic
    "adgangsord",  // Icelandic
    "salasana",    // Finnish
    "tunnussana",  // Finnish
    "salasona",    // Estonian
    "parool",      // Estonian
    "parol",       // Italian, Romanian, Turkish, Latvian; Russian in Latin letters
    "slaptazod",   // Lithuanian
    "jelszo",      // Hungarian
    "lozinka",     // Croatian, Serbian, Bosnian
    "zaporka",     // Croatian
    "sifre",       // Turkish
    "contrasen",   // Spanish, Catalan
    "contrasinal", // Galician
    "pasahitz",    // Basque
    "fjalekalim",  // Albanian
    "cyfrinair",   // Welsh
    "pasfhocal",   // Irish
    "парол",       // Russian, Ukrainian, Bulgarian
    "лозинк",      // Serbian, Macedonian
    "κωδικ",       // Greek
    "συνθηματικ",  // Greek
];
/// What is secret at the end of a part of a name, glued to another word: `loginpw`. Shorter than what could stand anywhere.
const GLUED_ENDS: &[&str] = &[
    "pw", "psk", "mdp",   // French
    "haslo", // Polish
    "heslo", // Czech, Slovak
    "geslo", // Slovenian
    "senha", // Portuguese
];
/// Those of them that begin no other word.
const GLUED_STARTS: &[&str] = &["heslo", "geslo", "senha"];
/// Parts of names that are secret on their own.
const SECRET_WORDS: &[&str] = &[
    "clave", // Spanish; an autoclave is none
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
    let name = &*without_accents(name);
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
    let is_foreign = |word: &str| {
        SECRET_STEMS.iter().any(|stem| word.contains(stem))
            || GLUED_ENDS.iter().any(|end| word.ends_with(end))
            || GLUED_STARTS.iter().any(|start| word.starts_with(start))
    };
    SECRET_PARTS.iter().any(|part| plain.contains(part))
        || words
            .iter()
            .any(|word| SECRET_WORDS.contains(&word.as_str()) || ends_secret(word) || is_foreign(word))
}

/// A name without separators and case.
pub(super) fn letters(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// What is written without accents, and the characters with accents that are read as it.
const LATIN: &[(&str, &str)] = &[
    ("a", "àáâãäåāăą"),
    ("ae", "æ"),
    ("c", "çćĉċč"),
    ("d", "ďđð"),
    ("e", "èéêëēĕėęě"),
    ("g", "ĝğġģ"),
    ("i", "ìíîïĩīĭįı"),
    ("k", "ķ"),
    ("l", "ĺļľł"),
    ("n", "ñńņň"),
    ("o", "òóôõöøōŏő"),
    ("oe", "œ"),
    ("r", "ŕŗř"),
    ("s", "śŝşšș"),
    ("ss", "ß"),
    ("t", "ţťțŧ"),
    ("th", "þ"),
    ("u", "ùúûüũūŭůűų"),
    ("y", "ýÿŷ"),
    ("z", "źżž"),
];

/// A name with plain characters in place of those with accents, composed or not.
fn without_accents(name: &str) -> Cow<'_, str> {
    if name.is_ascii() {
        return Cow::Borrowed(name);
    }
    let mut plain = String::with_capacity(name.len());
    for character in name.chars().filter(|c| !is_combining(*c)) {
        // The first of it: others are marks.
        let lower = character.to_lowercase().next().unwrap_or(character);
        match LATIN.iter().find(|(_, accented)| accented.contains(lower)) {
            // In upper case it may begin a part of the name.
            Some((letter, _)) if character != lower => plain.push_str(&letter.to_ascii_uppercase()),
            Some((letter, _)) => plain.push_str(letter),
            // Turkish İ.
            None if lower.is_ascii() && !character.is_ascii() => plain.push(lower.to_ascii_uppercase()),
            None => plain.push(character),
        }
    }
    Cow::Owned(plain)
}

/// An accent that follows its character.
pub(super) fn is_combining(c: char) -> bool {
    ('\u{300}'..='\u{36f}').contains(&c)
}

/// The parts of `camelCase`, `snake_case`, `kebab-case` and `HTTPServer`, in lower case and without digits at their ends.
fn words(name: &str) -> Vec<String> {
    let characters: Vec<char> = name.chars().collect();
    let mut words = vec![String::new()];
    for (at, character) in characters.iter().enumerate() {
        let follows_lower = at > 0 && characters[at - 1].is_lowercase();
        let leads_lower = at > 0 && characters.get(at + 1).is_some_and(|c| c.is_lowercase());
        if !character.is_alphanumeric() || (character.is_uppercase() && (follows_lower || leads_lower)) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| character.is_alphanumeric()) {
            word.extend(character.to_lowercase());
        }
    }
    words.iter().map(|word| word.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned()).collect()
}

#[cfg(test)]
mod tests;
