//! `password` in other languages than English.

use serde_json::json;

use super::is_secret_name;
use crate::redact::quotes::Quotes;
use crate::redact::{Named, json, text};

/// `password`, as the author of a program writes it.
const WORDS_FOR_PASSWORDS: &[&str] = &[
    "password",
    "Passwort",
    "Kennwort",
    "Losungswort",
    "mot de passe",
    "mdp",
    "phrase de passe",
    "contraseña",
    "clave",
    "contrasenya",
    "contrasinal",
    "pasahitza",
    "senha",
    "palavra passe",
    "parola",
    "parolă",
    "wachtwoord",
    "paswoord",
    "Passwuert",
    "adgangskode",
    "kodeord",
    "passord",
    "lösenord",
    "loesenord",
    "lykilorð",
    "aðgangsorð",
    "salasana",
    "tunnussana",
    "parool",
    "salasõna",
    "parole",
    "slaptažodis",
    "hasło",
    "heslo",
    "geslo",
    "lozinka",
    "zaporka",
    "jelszó",
    "şifre",
    "fjalëkalim",
    "cyfrinair",
    "пароль",
    "парола",
    "лозинка",
    "κωδικός",
    "pw",
    "pwd",
    "passwd",
    "psk",
];

#[test]
fn a_word_for_a_password_is_secret_in_every_european_language_and_spelling() {
    let capital = |word: &str| {
        let mut characters = word.chars();
        characters.next().map(|c| c.to_uppercase().chain(characters).collect::<String>()).unwrap_or_default()
    };
    for word in WORDS_FOR_PASSWORDS {
        let parts: Vec<&str> = word.split(' ').collect();
        let camel: String = parts.iter().map(|part| capital(part)).collect();
        for name in [
            parts.join("_"),
            parts.join("-"),
            parts.concat(),
            parts.join("_").to_uppercase(),
            camel.clone(),
            format!("wifi{camel}"),
            format!("wifi{camel}2"),
            format!("wifi_{}", parts.join("_")),
            format!("{}_wifi", parts.join("_")),
            format!("{}.new", parts.join("-")),
        ] {
            assert!(is_secret_name(&name), "{name}");
            let document = json!({name.as_str(): "s3cr3t"}).to_string();
            let shown = json(&document, &Named::default(), &Quotes::default()).unwrap();
            assert!(!shown.contains("s3cr3t"), "{shown}");
            assert!(!text(&format!("x {name}=s3cr3t")).contains("s3cr3t"), "{name}");
        }
    }
    // Glued to another word, all in small letters; and with accents that follow their letters.
    for name in [
        "loginpw",
        "ssidpwd",
        "dbpass",
        "wifipsk",
        "routermdp",
        "mojehaslo",
        "wifiheslo",
        "heslowifi",
        "minhasenha",
        "senhawifi",
        "wifipassword",
        "LOGINPW",
        "loginpw2",
        "wlanpasswort",
        "contrasen\u{303}a",
        "jelszo\u{301}",
        "ŞİFRE",
        "HASŁO",
    ] {
        assert!(is_secret_name(name), "{name}");
    }
    for name in [
        "autoclave",
        "enclave",
        "dashLow",
        "hasLocation",
        "hasLock",
        "bypassOrder",
        "compass_order",
        "eisenhalter",
        "Düsenhalter",
        "pwm",
        "pwmDuty",
        "power",
        "vitesse_de_passe",
        "nombrePasses",
        "dépassement",
        "Schlüsselschalter",
        "Lösung",
        "température",
        "тиск",
        "θερμοκρασία",
        "übergabe",
        "reset",
        "Größe",
    ] {
        assert!(!is_secret_name(name), "{name}");
    }
}
