//! How create options are read: as loosely as IoT Edge reads them, and merged as the engine merges them.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;

use proptest::prelude::*;
use schemas::manifest::{Manifest, ManifestError, Module};
use serde_json::{Map, Value, json};

fn module(create_options: &Value) -> Result<Module, ManifestError> {
    let manifest = json!({"modulesContent": {"$edgeAgent": {"properties.desired": {
        "schemaVersion": "1.1", "modules": {"m": {"settings": {"image": "a:1", "createOptions": create_options}}}
    }}}});
    let manifest = Manifest::parse(manifest.to_string().as_bytes())?;
    Ok(manifest.edge_agent.modules.into_values().next().unwrap())
}

fn read(text: &str) -> Value {
    Value::Object(module(&json!(text)).unwrap_or_else(|why| panic!("{text}: {why}")).create_options)
}

#[test]
fn what_newtonsoft_takes_beside_json_is_taken() {
    let tty = json!({"Tty": true});
    let memory = |bytes: u64| json!({"HostConfig": {"Memory": bytes}});
    for (text, expected) in [
        ("", json!({})),
        (" \n", json!({})),
        ("null", json!({})),
        ("undefined", json!({})),
        ("// nothing", json!({})),
        (r#"{"Tty": true,}"#, tty.clone()),
        ("{Tty: true}", tty.clone()),
        ("{'Tty': true}", tty.clone()),
        ("\u{feff}{\"Tty\":true} // end", tty.clone()),
        ("/* a * b */{/**/Tty/* c */:/* d */true/* e */,/* f */}", tty.clone()),
        ("{\"Tty\": true // why\r\n, \"Env\": [ /* none */ ]}", json!({"Tty": true, "Env": []})),
        ("{Env: ['a=\"b\"', \"c='d'\",]}", json!({"Env": ["a=\"b\"", "c='d'"]})),
        (
            r#"{Env: ["a=\u00e9\n\ud83d\ude00\/", 'it\'s', "\ud83dx", "\ude00"]}"#,
            json!({"Env": ["a=é\n😀/", "it's", "\u{fffd}x", "\u{fffd}"]}),
        ),
        ("{Env: ['two\nlines']}", json!({"Env": ["two\nlines"]})),
        ("{$x_1: 1}", json!({"$x_1": 1})),
        ("{HostConfig: {Memory: 0x4000000}}", memory(67_108_864)),
        ("{HostConfig: {Memory: 0400}}", memory(256)),
        ("{HostConfig: {Memory: 6.7108864e7}}", memory(67_108_864)),
        ("{HostConfig: {Memory: '67108864'}}", memory(67_108_864)),
        ("{x: .5, y: -.5, z: 1.}", json!({"x": 0.5, "y": -0.5, "z": 1.0})),
    ] {
        assert_eq!(read(text), expected, "{text}");
    }
    for (text, why) in [
        ("{", "expected a key at line 1 column 2"),
        ("{\n \"Tty\" true}", "expected a colon at line 2 column 8"),
        ("{Tty: yes}", "expected a value, found a text without quotes"),
        ("{Tty: }", "expected a value at"),
        ("{Tty: true Env: []}", "expected a comma or the end"),
        ("{Tty: true} x", "expected the end, found more"),
        ("{Tty: true}}", "expected the end, found more"),
        ("{Env: [1,,2]}", "expected a value"),
        ("{Env: 'x}", "expected the end of the text"),
        ("{Env: '\\x'}", "unknown escape"),
        ("{Env: '\\u12'}", "four hexadecimal digits"),
        ("{/ Tty: true}", "comment"),
        ("{/* Tty: true}", "the end of the comment"),
        ("{Memory: 1e999}", "a number that JSON does not have"),
        ("{Memory: 1x}", "a number that JSON does not have"),
        ("{Memory: 089}", "a number that JSON does not have"),
        ("[]", "holds an array"),
        ("\"{}\"", "holds a text"),
        ("1", "holds 1"),
    ] {
        let error = module(&json!(text)).unwrap_err();
        assert!(
            error.path.ends_with("settings.createOptions") && error.found.contains(why),
            "{text}: {error}"
        );
    }
}

#[test]
fn values_of_another_type_are_converted_as_newtonsoft_converts_them() {
    let host = |text: &str| read(&format!("{{HostConfig: {{{text}}}}}"))["HostConfig"].clone();
    for (text, expected) in [
        (
            "PortBindings: {'80/tcp': [{HostPort: 8080}]}",
            json!({"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}),
        ),
        ("Privileged: 'true'", json!({"Privileged": true})),
        ("Privileged: ' False '", json!({"Privileged": false})),
        ("Privileged: 1", json!({"Privileged": true})),
        ("Privileged: 0", json!({"Privileged": false})),
        ("Privileged: ''", json!({"Privileged": null})),
        ("Memory: ' 12 '", json!({"Memory": 12})),
        ("Memory: 12.0", json!({"Memory": 12})),
        ("Memory: 9223372036854775807", json!({"Memory": i64::MAX})),
        ("Memory: true", json!({"Memory": 1})),
        ("Sysctls: {'net.core.somaxconn': 1024}", json!({"Sysctls": {"net.core.somaxconn": "1024"}})),
        (
            "LogConfig: {Config: {'max-file': 3, compress: true, x: 1.50}}",
            json!({"LogConfig": {"Config": {"max-file": "3", "compress": "true", "x": "1.50"}}}),
        ),
        ("Dns: [1, true, 'x', null]", json!({"Dns": ["1", "true", "x", null]})),
        ("CapAdd: 'NET_ADMIN'", json!({"CapAdd": "NET_ADMIN"})),
        ("Unknown: 18446744073709551615", json!({"Unknown": u64::MAX})),
        ("Unknown: -9223372036854775808", json!({"Unknown": i64::MIN})),
    ] {
        assert_eq!(host(text), expected, "{text}");
    }
    for (text, path, found) in [
        ("Memory: 'much'", "HostConfig.Memory", "a text"),
        ("Memory: 1.5", "HostConfig.Memory", "1.5"),
        ("Memory: 12345678901234567890123", "HostConfig.Memory", "12345678901234567890123"),
        ("Privileged: 'yes'", "HostConfig.Privileged", "a text"),
        ("Binds: '/a:/b'", "HostConfig.Binds", "a text"),
        ("binds: {}", "HostConfig.binds", "an object"),
        ("Mounts: [{Type: 'bind'}, {Source: []}]", "HostConfig.Mounts.1.Source", "an array"),
        ("PortBindings: {'80/tcp': {HostPort: '1'}}", "HostConfig.PortBindings.80/tcp", "an object"),
        ("Init: {}", "HostConfig.Init", "an object"),
    ] {
        let error = module(&json!(format!("{{HostConfig: {{{text}}}}}"))).unwrap_err();
        assert!(
            error.path.ends_with(&format!("createOptions.{path}")) && error.found == found,
            "{text}: {error}"
        );
    }
}

#[test]
fn a_wrong_value_in_a_twin_leaves_the_other_modules_in_force() {
    let section = json!({"schemaVersion": "1.1", "modules": {
        "good": {"settings": {"image": "a:1"}},
        "wrong": {"settings": {"image": "a:1", "createOptions": "{\"Env\": \"A=1\"}"}}
    }});
    let manifest = Manifest::from_twins(section.as_object().unwrap(), &Map::new()).unwrap();
    let refused =
        |name: &str| manifest.edge_agent.modules[&name.parse().unwrap()].create_options_refused.clone();
    assert_eq!(refused("good"), None);
    assert!(refused("wrong").unwrap().path.ends_with("modules.wrong.settings.createOptions.Env"));
}

/// Written twice, and what Go's decoder makes of it.
#[test]
fn a_key_in_several_spellings_is_merged_as_gos_decoder_merges_it() {
    for (text, expected) in [
        (
            r#"{"HostConfig":{"Privileged":false,"privileged":true}}"#,
            json!({"HostConfig": {"Privileged": true}}),
        ),
        (
            r#"{"HostConfig":{"privileged":true,"Privileged":false}}"#,
            json!({"HostConfig": {"Privileged": false}}),
        ),
        (
            r#"{"HostConfig":{"Privileged":true},"hostConfig":{"Memory":1}}"#,
            json!({"HostConfig": {"Privileged": true, "Memory": 1}}),
        ),
        (
            r#"{"HostConfig":{"Memory":1},"HostConfig":{"CpuShares":2}}"#,
            json!({"HostConfig": {"Memory": 1, "CpuShares": 2}}),
        ),
        // Null takes pointers, lists and maps away, and leaves everything else.
        (r#"{"HostConfig":{"Privileged":true},"hostconfig":null}"#, json!({"HostConfig": null})),
        (
            r#"{"HostConfig":{"Privileged":true,"privileged":null}}"#,
            json!({"HostConfig": {"Privileged": true}}),
        ),
        (r#"{"HostConfig":{"Binds":["/a:/a"],"binds":null}}"#, json!({"HostConfig": {"Binds": null}})),
        (r#"{"HostConfig":{"Init":true,"init":null}}"#, json!({"HostConfig": {"Init": null}})),
        (
            r#"{"HostConfig":{"LogConfig":{"Type":"local"},"logconfig":null}}"#,
            json!({"HostConfig": {"LogConfig": {"Type": "local"}}}),
        ),
        // Lists are replaced, element over element; maps gain entries, each anew.
        (r#"{"Env":["A=1","B=2"],"env":["C=3"]}"#, json!({"Env": ["C=3"]})),
        (
            r#"{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/etc"},{"Type":"tmpfs"}],"mounts":[{"Target":"/x"}]}}"#,
            json!({"HostConfig": {"Mounts": [{"Type": "bind", "Source": "/etc", "Target": "/x"}]}}),
        ),
        (
            r#"{"Labels":{"a":"1"},"labels":{"A":"2","b":"3"}}"#,
            json!({"Labels": {"a": "1", "A": "2", "b": "3"}}),
        ),
        (
            r#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"::1"}]},"portbindings":{"80/tcp":[{"HostPort":"8"}]}}}"#,
            json!({"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "8"}]}}}),
        ),
        // Go also folds the long s and the Kelvin sign.
        (
            "{\"Ho\u{17f}tConfig\":{\"Bind\u{17f}\":[\"/:/h\"],\"Networ\u{212a}Mode\":\"host\"}}",
            json!({"HostConfig": {"Binds": ["/:/h"], "NetworkMode": "host"}}),
        ),
        // Keys of a newer engine.
        (r#"{"Foo":{"a":1},"foo":{"b":2},"Bar":1,"bar":2}"#, json!({"foo": {"a": 1, "b": 2}, "bar": 2})),
    ] {
        assert_eq!(read(text), expected, "{text}");
        assert_eq!(read(&read(text).to_string()), expected, "read again: {text}");
    }
}

fn value() -> impl Strategy<Value = Value> {
    let plain = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "(\\PC|[\"'\\\\\n\t/*]){0,8}".prop_map(Value::from),
    ];
    plain.prop_recursive(5, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("x(\\PC){0,6}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Writes a value with whatever Newtonsoft.Json takes beside JSON, as the choices have it.
fn loosely(value: &Value, choices: &mut dyn Iterator<Item = u8>, text: &mut String) {
    fn blank(choices: &mut dyn Iterator<Item = u8>, text: &mut String) {
        text.push_str(
            ["", " ", "/* a, } \" */", "// b ] '\n", "\n\t", "/***/"]
                [usize::from(choices.next().unwrap() % 6)],
        );
    }
    fn quoted(written: &str, choices: &mut dyn Iterator<Item = u8>, text: &mut String) {
        match choices.next().unwrap() % 3 {
            0 => text.push_str(&Value::from(written).to_string()),
            _ => {
                let escaped = |c: char| match c {
                    '\'' | '\\' => format!("\\{c}"),
                    c => c.to_string(),
                };
                let inside: String = written.chars().map(escaped).collect();
                let _ = write!(text, "'{inside}'");
            }
        }
    }
    blank(choices, text);
    match value {
        Value::Object(members) => {
            text.push('{');
            for (index, (key, value)) in members.iter().enumerate() {
                blank(choices, text);
                let is_bare = key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '$');
                if is_bare && choices.next().unwrap().is_multiple_of(2) {
                    text.push_str(key)
                } else {
                    quoted(key, choices, text)
                }
                blank(choices, text);
                text.push(':');
                loosely(value, choices, text);
                if index + 1 < members.len() || choices.next().unwrap().is_multiple_of(2) {
                    text.push(',');
                }
            }
            blank(choices, text);
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                loosely(item, choices, text);
                if index + 1 < items.len() || choices.next().unwrap().is_multiple_of(2) {
                    text.push(',');
                }
            }
            blank(choices, text);
            text.push(']');
        }
        Value::String(written) => quoted(written, choices, text),
        plain => text.push_str(&plain.to_string()),
    }
    blank(choices, text);
}

proptest! {
    #[test]
    fn keys_that_nobody_knows_are_kept_as_written_however_loosely(
        members in prop::collection::btree_map("x[a-z0-9]{0,6}", value(), 0..4),
        choices in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let members: Value = members.into_iter().collect::<Map<_, _>>().into();
        // serde_json's floats are not exact to the last bit.
        let members: Value = serde_json::from_str(&members.to_string()).unwrap();
        let expected: Value = serde_json::from_str(&members.to_string()).unwrap();
        let mut text = String::new();
        loosely(&members, &mut choices.iter().copied().cycle(), &mut text);
        for options in [json!(members.to_string()), json!(text), members] {
            let read = module(&options).map(|module| Value::Object(module.create_options));
            prop_assert_eq!(read.as_ref(), Ok(&expected), "{}", text);
        }
    }

    #[test]
    fn any_text_is_read_or_refused_by_its_place(text in "(\\PC|[{}\\[\\]:,\"'/*\\\\\n0-9.-]){0,60}") {
        match module(&json!(text)) {
            Ok(_) => {}
            Err(error) => prop_assert!(error.path.contains("settings.createOptions"), "{}", error),
        }
    }
}
