use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn shown(value: &Value, path: &str) -> Value {
    serde_json::from_str(&json(&value.to_string(), &Named::of_path(path), &Quotes::default()).unwrap())
        .unwrap()
}

#[allow(clippy::needless_pass_by_value, reason = "short where a document is made for it")]
fn hidden(value: Value) -> Value {
    shown(&value, "")
}

#[test]
fn names_of_secrets_are_known_in_every_spelling_and_others_are_not() {
    for name in [
        "password",
        "Password",
        "dbPassword",
        "DB_PASSWORD",
        "db-pass",
        "DBPASS",
        "mqttPwd",
        "apiKey",
        "APIKEY",
        "api_key",
        "x-api-key",
        "primaryKey",
        "secondaryKey",
        "SharedAccessKey",
        "SharedAccessSignature",
        "AccountKey",
        "sig",
        "clientSecret",
        "accessToken",
        "refresh_token",
        "connectionString",
        "ConnStr",
        "Authorization",
        "auth",
        "licenseKey2",
        "passphrase",
        "credentials",
        "sasUrl",
        "jwt",
        "deviceKeys",
        "HTTPAuth",
        "key",
    ] {
        assert!(names::is_secret_name(name), "{name}");
    }
    for name in [
        "temperature",
        "bypass",
        "compass",
        "monkey",
        "keyboard",
        "publicKey",
        "partition-key",
        "$skiptoken",
        "displayName",
        "etag",
        "image",
        "author",
        "design",
        "lowPass",
        "turkey",
        "passenger",
        "sequence",
        "username",
        "thumbprint",
    ] {
        assert!(!is_secret_name(name), "{name}");
    }
}

#[test]
fn a_manifest_shows_what_runs_and_not_its_settings() {
    let options = json!({
        "Env": ["MODE=fast", "TOKEN=s3cr3t-1"], "Cmd": ["--user", "s3cr3t-2"], "Labels": {"a": "s3cr3t-3"},
        "HostConfig": {"Binds": ["/data:/data"], "NetworkMode": "host", "Memory": 64, "Privileged": true,
            "LogConfig": {"Type": "splunk", "Config": {"url": "s3cr3t-4"}},
            "Mounts": [{"Type": "volume", "Source": "v", "Target": "/v",
                "VolumeOptions": {"DriverConfig": {"Options": {"o": "s3cr3t-5"}}}}],
            "PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}});
    let text = options.to_string();
    let (first, second) = text.split_at(text.find("s3cr3t-1").unwrap() + 3);
    let module = |settings: Value| json!({"settings": settings, "status": "running", "env": {"A": {"value": "s3cr3t-6"}, "PIN": {"value": 9_876}}});
    let agent = json!({
        "runtime": {"settings": {"registryCredentials": {"r": {
            "address": "registry.example", "username": "s3cr3t-7", "password": "s3cr3t-8"}}}},
        "modules": {
            "text": module(json!({"image": "a:1", "createOptions": text})),
            "parts": module(json!({"image": "a:2", "createOptions": first, "createOptions01": second})),
            "object": module(json!({"image": "a:3", "createOptions": options})),
            "damaged": module(json!({"image": "a:4", "createOptions": "{\"Env\": [s3cr3t-9"}))}});
    let manifest = json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": agent, "properties.desired.modules.flat.env": {"A": {"value": "s3cr3t-10"}},
            "properties.desired.modules.flat.settings.createOptions": "{\"Env\": [\"A=s3cr3t-11\"]}",
            "properties.desired.modules.flat.env.B.value": "s3cr3t-12"},
        "sensor": {"properties.desired": {"interval": 5, "broker": {"url": "mqtt://u:s3cr3t-13@h", "password": "s3cr3t-14"}},
            "properties.desired.broker.apiKey": "s3cr3t-15"}}});
    let shown = hidden(manifest);
    let text = shown.to_string();
    assert!(!text.contains("s3cr3t") && !text.contains("9876"), "{text}");
    let agent = &shown["modulesContent"]["$edgeAgent"]["properties.desired"];
    assert_eq!(agent["runtime"]["settings"]["registryCredentials"]["r"]["address"], "registry.example");
    for name in ["text", "parts", "object"] {
        let module = &agent["modules"][name];
        assert_eq!(
            (&module["status"], module["env"]["A"]["value"].as_str()),
            (&json!("running"), Some(REDACTED))
        );
        let options = match &module["settings"]["createOptions"] {
            Value::String(text) => serde_json::from_str(text).unwrap(),
            options => options.clone(),
        };
        assert_eq!(options["Env"][0], format!("MODE={REDACTED}"), "{name}");
        let host = &options["HostConfig"];
        assert_eq!((&host["Binds"], &host["Memory"]), (&json!(["/data:/data"]), &json!(64)), "{name}");
        assert_eq!(host["PortBindings"]["80/tcp"][0]["HostPort"], "8080", "{name}");
        assert_eq!(
            (&host["LogConfig"]["Type"], &host["Mounts"][0]["Source"]),
            (&json!("splunk"), &json!("v")),
            "{name}"
        );
    }
    assert_eq!(shown["modulesContent"]["sensor"]["properties.desired"]["interval"], 5);
}

#[test]
fn the_page_on_access_names_each_create_option_that_viewers_see() {
    let page = include_str!("../../../../docs/operating/api-access.md");
    let row = page.lines().find(|line| line.starts_with("| texts in `createOptions`")).unwrap();
    let named = row.split("except").nth(1).unwrap().split('|').next().unwrap().split('`').skip(1).step_by(2);
    let mut named: Vec<String> = named.map(letters).collect();
    named.sort();
    assert_eq!(named, PUBLIC_OPTIONS);
}

#[test]
fn members_that_people_name_are_no_public_create_options() {
    let options = json!({"Labels": {"user": "s3cr3t", "a.source": "s3cr3t"}, "WorkingDir": "/s3cr3t",
        "HostConfig": {"LogConfig": {"Type": "splunk", "Config": {"name": "s3cr3t"}}, "Annotations": {"type": "s3cr3t"}},
        "NetworkingConfig": {"EndpointsConfig": {"user": {"DriverOpts": {"name": "s3cr3t"}, "Links": ["s3cr3t"]}}}});
    let shown = hidden(json!({"createOptions": options.to_string()})).to_string();
    assert!(!shown.contains("s3cr3t") && shown.contains("splunk"), "{shown}");
}

#[test]
fn texts_lose_what_has_the_form_of_a_secret_and_keep_the_rest() {
    for (given, expected) in [
        ("module filter has ended: exit code 3", "module filter has ended: exit code 3"),
        ("2026-11-29T08:00:00Z: a=1; b=2", "2026-11-29T08:00:00Z: a=1; b=2"),
        (
            "HostName=h;DeviceId=d;SharedAccessKey=abc=",
            "HostName=h;DeviceId=d;SharedAccessKey=***redacted***",
        ),
        ("SharedAccessSignature sr=h&sig=abc%3D&se=1", "SharedAccessSignature sr=h&sig=***redacted***"),
        ("GET https://s.example/c?sv=1&sig=abc", "GET https://s.example/c?sv=1&sig=***redacted***"),
        ("a: https://user:p@ss/w@host/x", "a: https://user:***redacted***@host/x"),
        ("login --password my pass", "login --password ***redacted***"),
        ("x {\"apiKey\": \"a\\\"b\"", "x {\"apiKey\":***redacted***"),
        ("password:\n  abc", "password:***redacted***"),
        ("password=a\nuser=b", "password=***redacted***\nuser=b"),
        ("used Bearer aBcDeFgH1 to log in", "used Bearer ***redacted*** to log in"),
        ("password%3Dabc", "password%3D***redacted***"),
        ("-----BEGIN EC PRIVATE KEY-----\nabc\n-----END EC PRIVATE KEY-----\nend", "***redacted***\nend"),
        (
            "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----",
            "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----",
        ),
        ("password:", "password:"),
    ] {
        assert_eq!(text(given), expected);
    }
}

#[test]
fn a_value_that_is_named_by_the_path_is_hidden_by_that_name() {
    let answer = json!({"timestamp": "t", "value": "s3cr3t"});
    let shown = |path: &str| shown(&answer, path)["value"].as_str().map(str::to_owned);
    assert_eq!(shown("/api/devices/d/telemetry/pass%77ord").as_deref(), Some(REDACTED));
    assert_eq!(shown("/api/devices/d/telemetry/temperature").as_deref(), Some("s3cr3t"));
}

/// Something around a secret that says that it is one.
fn wrapped() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "password",
        "apiKey",
        "DB_PASS",
        "connectionString",
        "sasToken",
        "registryCredentials",
    ]);
    let secret = || Just("s3cr3t-value".to_owned());
    let secret_field = (name, secret()).prop_map(|(name, secret)| json!({name: secret}));
    let environment = secret().prop_map(|secret| json!({"env": {"A": {"value": secret}}}));
    let options = secret()
        .prop_map(|secret| json!({"createOptions": json!({"Env": [format!("A={secret}")]}).to_string()}));
    let pair = secret().prop_map(|secret| json!(format!("x;AccountKey={secret}")));
    let address = secret().prop_map(|secret| json!(format!("amqp://u:{secret}@h")));
    let innermost = prop_oneof![secret_field, environment, options, pair, address];
    innermost.prop_recursive(6, 12, 3, |inner| {
        let name = prop::sample::select(vec![
            "a",
            "value",
            "properties.desired",
            "settings",
            "message",
            "$metadata",
            "password",
        ]);
        prop_oneof![
            (name, inner.clone()).prop_map(|(name, inner)| json!({"other": 1, name: inner})),
            inner.clone().prop_map(|inner| json!([null, inner])),
            inner.clone().prop_map(|inner| json!(inner.to_string())),
            inner.clone().prop_map(|inner| json!({"bodyBase64": STANDARD.encode(inner.to_string())})),
            inner.clone().prop_map(|inner| json!(format!("cfg {}", STANDARD.encode(inner.to_string())))),
            inner.prop_map(|inner| json!(URL_SAFE_NO_PAD.encode(inner.to_string()))),
        ]
    })
}

#[test]
fn base64_of_what_would_be_hidden_is_hidden_in_each_form_and_other_base64_is_shown() {
    let secrets = [
        r#"{"password":"HUNTER2AAA"}"#,
        r#"{"note": 1, "password": "HUNTER2AAA"}"#,
        "password=HUNTER2AAA",
        "user: a\npassword: HUNTER2AAA\n",
        "SharedAccessKey=HUNTER2AAA",
        "pw=x",
        "https://u:HUNTER2AAA@host/path",
        "<password>HUNTER2AAA</password>",
    ];
    for secret in secrets {
        let long = format!("{secret}\n{}", "a line of no meaning \u{fc} ".repeat(9));
        let twice = STANDARD.encode(STANDARD.encode(secret));
        let encoded = STANDARD.encode(&long);
        let lines: Vec<_> = encoded.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        let forms = [
            STANDARD.encode(secret),
            STANDARD_NO_PAD.encode(secret),
            URL_SAFE_NO_PAD.encode(&long),
            format!("cfg {}", STANDARD.encode(secret)),
            format!("data:text/plain;base64,{}", STANDARD.encode(secret)),
            format!("path/{}", STANDARD.encode(secret)),
            lines.join("\n"),
            lines.join("\r\n"),
            twice,
        ];
        for form in forms {
            let shown = text(&form);
            assert!(
                shown.contains(REDACTED) && !shown.contains(&form[form.len() - 6..]),
                "{secret:?} as {form:?}: {shown:?}"
            );
        }
    }
    for harmless in ["a temperature of 21.5 C in hall 4", "{\"line\":4,\"state\":\"runs\"}"] {
        let shown = STANDARD.encode(harmless);
        assert_eq!(text(&shown), shown);
    }
    let digest = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    assert_eq!(text(digest), digest);
}

proptest! {
    #[test]
    fn no_secret_is_left_however_it_is_wrapped(document in wrapped()) {
        let shown = hidden(document);
        prop_assert!(!decoded(&shown).contains("s3cr3t"), "{shown}");
    }

    #[test]
    fn a_secret_is_found_in_any_noise(
        before in "(password|--key|sig|=|:| |\"|\\\\|%3D|%|://|@|é|\n|a|\\{|eyJ|Bearer |-----BEGIN |-----END |PRIVATE KEY-----){0,20}",
        form in prop::sample::select(vec!["password=", "sig%3D", "\"apiKey\" : ", "--token ", "amqp://u:", "Bearer "]),
        after in "(password|--key|sig|=|:| |\"|\\\\|%3D|%|://|@|é|\n|a|\\{|eyJ|Bearer |-----BEGIN |-----END |PRIVATE KEY-----){0,20}",
    ) {
        let end = if form.starts_with("amqp") { "@h" } else { "" };
        let given = format!("{before} {form}s3cr3t-V4lue{end} {after}");
        let shown = text(&given);
        prop_assert!(!shown.contains("s3cr3t"), "{shown}");
    }
}

/// A document with what its base64 fields hold.
fn decoded(value: &Value) -> String {
    let mut text = value.to_string();
    let mut queue = vec![value.clone()];
    while let Some(value) = queue.pop() {
        match value {
            Value::Object(fields) => queue.extend(fields.into_iter().map(|(_, value)| value)),
            Value::Array(items) => queue.extend(items),
            Value::String(inner) => {
                let base64 = STANDARD.decode(&inner).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                let inner = base64.unwrap_or(inner);
                for word in inner.split(' ') {
                    let encoded = word.trim_end_matches('=').replace('+', "-").replace('/', "_");
                    let inner = URL_SAFE_NO_PAD.decode(encoded).ok();
                    queue.extend(inner.and_then(|bytes| String::from_utf8(bytes).ok()).map(Value::String));
                }
                text.push_str(&inner);
                queue.extend(serde_json::from_str::<Value>(&inner).ok().filter(|value| !value.is_string()));
            }
            _ => {}
        }
    }
    text
}

#[test]
fn a_row_that_names_a_secret_is_hidden_and_its_name_and_others_are_not() {
    let row = |name: &str| {
        json!({"name": name, "module": "m", "value": {"a": ["hunter2"]}, "request": "hunter2", "response": 5,
            "error": "hunter2", "status": "answered"})
    };
    let shown = hidden(json!([row("apiKey"), row("reset*password"), row("temperature")]));
    for secret in [&shown[0], &shown[1]] {
        assert!(!secret.to_string().contains("hunter2") && secret["response"] == REDACTED, "{secret}");
        assert_eq!((&secret["module"], &secret["status"]), (&json!("m"), &json!("answered")));
    }
    assert_eq!(shown[0]["name"], "apiKey");
    assert_eq!(shown[2], row("temperature"));
    let environment = hidden(json!({"name": "env", "value": {"A": {"value": "hunter2"}, "B": "hunter2"}}));
    assert!(!environment.to_string().contains("hunter2"), "{environment}");
}

#[test]
fn names_and_forms_of_secrets_are_hidden_and_words_that_contain_them_are_shown() {
    for name in [
        "creds",
        "dbCreds",
        "pin",
        "PIN",
        "sim_pin",
        "pin2",
        "puk",
        "otp",
        "totp",
        "hmac",
        "seed",
        "walletSeed",
        "mnemonic",
        "snmpCommunity",
        "community",
        "session",
        "sessionId",
        "session_id",
        "login",
        "webhookUrl",
        "dsn",
        "SENTRY_DSN",
        "pfx",
        "p12",
        "unlockCode",
        "access_code",
        "license",
        "licenseFile",
    ] {
        assert!(names::is_secret_name(name), "{name}");
        assert_eq!(hidden(json!({name: "s3cr3t"})), json!({name: REDACTED}), "{name}");
        assert!(!text(&format!("x {name}=s3cr3t")).contains("s3cr3t"), "{name}");
    }
    for name in [
        "pinion",
        "pineapple",
        "spin",
        "spinRate",
        "seedling",
        "proceed",
        "sessions",
        "lastLogin",
        "code",
        "exitCode",
        "unlock",
        "communityCount2x",
        "otpimal",
        "opinion",
        "p1",
        "p123",
        "shipping",
    ] {
        let is_word = name == "communityCount2x";
        assert_eq!(names::is_secret_name(name), is_word, "{name}");
    }
    for (given, expected) in [
        ("curl -u user:S3CR3T https://h/x", "curl -u user:***redacted*** https://h/x"),
        ("/usr/bin/curl --user user:S3CR3T -v", "/usr/bin/curl --user user:***redacted*** -v"),
        ("curl -uuser:S3CR3T h", "curl -uuser:***redacted*** h"),
        ("mysql -uroot -pS3CR3T db", "mysql -uroot -p***redacted*** db"),
        ("mysqldump -pS3CR3T", "mysqldump -p***redacted***"),
        ("sshpass -p S3CR3T ssh h", "sshpass -p ***redacted*** ssh h"),
        ("docker login -u u -p S3CR3T", "docker login -u u -p ***redacted***"),
        ("mosquitto_pub -h h -P S3CR3T -t a", "mosquitto_pub -h h -P ***redacted*** -t a"),
        ("snmpget -v2c -c S3CR3T h", "snmpget -v2c -c ***redacted*** h"),
        ("ran wpa_passphrase S3CR3T and more", "ran wpa_passphrase ***redacted***"),
        ("GET /cb?code=S3CR3T", "GET /cb?code=***redacted***"),
        ("GET /cb?a=1&code=S3CR3T", "GET /cb?a=1&code=***redacted***"),
        ("pin=S3CR3T", "pin=***redacted***"),
        ("key AKIAIOSFODNN7EXAMPLE used", "key ***redacted*** used"),
        ("t ghp_0123456789abcdefghijABCDEFGHIJ012345.", "t ***redacted***."),
        ("t github_pat_0123456789abcdefghij_AB", "t ***redacted***"),
        ("t xoxb-123456789012-abcdefghij", "t ***redacted***"),
        (
            "to https://hooks.slack.com/services/T0/B0/abc now",
            "to https://hooks.slack.com/services/***redacted*** now",
        ),
    ] {
        assert_eq!(text(given), expected);
    }
    for shown in [
        "docker run -p 8080:80 image",
        "module filter ended with exit code=3",
        "curl -u user h",
        "mysql -p db",
        "the pinion spins at 20 rpm",
        "AKIA and ghp_ begin tokens",
    ] {
        assert_eq!(text(shown), shown);
    }
}

#[test]
fn what_holds_no_secret_is_borrowed_with_every_digit_and_blank() {
    let document =
        "{ \"a\" : [1.50, 12345678901234567890123, 1e999, true, null], \"b\":{\"c\": \"sp\\u00e4t\"} }\n";
    assert!(matches!(json(document, &Named::default(), &Quotes::default()), Some(Cow::Borrowed(_))));
    let with = document.replace("\"c\"", "\"pin\"");
    assert_eq!(
        json(&with, &Named::default(), &Quotes::default()).unwrap(),
        with.replace("\"sp\\u00e4t\"", "\"***redacted***\"")
    );
    assert!(json("{", &Named::default(), &Quotes::default()).is_none());
}
