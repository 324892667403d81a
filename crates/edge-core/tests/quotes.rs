//! What a gateway quotes of its manifest's hidden texts is hidden, however its engine writes it.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::sync::Arc;

use edge_core::redact::quotes::{Quotable, Quotes};
use edge_core::redact::{self, Named, fragments};
use proptest::prelude::*;
use schemas::redaction::REDACTED;
use serde_json::{Value, json};

const SECRET: &str = "hunter2xyz";

/// Every text of `createOptions` that a viewer does not see, with `secret` in it.
fn members(secret: &str) -> Vec<(&'static str, Value)> {
    let host = |member: Value| json!({ "HostConfig": member });
    vec![
        ("Entrypoint", json!({"Entrypoint": [format!("app -k {secret}")]})),
        ("Entrypoint as a text", json!({"Entrypoint": format!("/bin/{secret}")})),
        ("Cmd", json!({"Cmd": ["run", format!("--key={secret}")]})),
        ("Env", json!({"Env": [format!("KEY={secret}")]})),
        ("Shell", json!({"Shell": ["/bin/sh", secret]})),
        ("OnBuild", json!({"OnBuild": [format!("RUN {secret}")]})),
        ("WorkingDir", json!({"WorkingDir": format!("/srv/{secret}")})),
        ("Healthcheck", json!({"Healthcheck": {"Test": ["CMD", "wget", format!("http://h/{secret}")]}})),
        ("Labels", json!({"Labels": {"a.name": secret, "user": "x"}})),
        ("LogConfig", host(json!({"LogConfig": {"Type": "splunk", "Config": {"source": secret}}}))),
        ("Annotations", host(json!({"Annotations": {"name": secret}}))),
        ("StorageOpt", host(json!({"StorageOpt": {"size": secret}}))),
        ("Tmpfs", host(json!({"Tmpfs": {"/run": format!("rw,{secret}")}}))),
        ("Sysctls", host(json!({"Sysctls": {"net.x": secret}}))),
        ("DnsOptions", host(json!({"DnsOptions": [secret]}))),
        ("GroupAdd", host(json!({"GroupAdd": [secret]}))),
        ("Links", host(json!({"Links": [format!("db:{secret}")]}))),
        ("VolumeDriver", host(json!({"VolumeDriver": secret}))),
        ("ContainerIDFile", host(json!({"ContainerIDFile": format!("/x/{secret}")}))),
        ("CpusetCpus", host(json!({"CpusetCpus": secret}))),
        ("DeviceCgroupRules", host(json!({"DeviceCgroupRules": [format!("c {secret} rwm")]}))),
        (
            "DeviceRequests",
            host(json!({"DeviceRequests": [{"Driver": secret, "Options": {"type": secret}}]})),
        ),
        (
            "DriverConfig",
            host(json!({"Mounts": [{"Type": "volume", "Source": "v", "Target": "/v",
            "VolumeOptions": {"DriverConfig": {"Options": {"source": format!("addr=h,{secret}")}}}}]})),
        ),
        (
            "Networking",
            json!({"NetworkingConfig": {"EndpointsConfig": {"n": {"DriverOpts": {"name": secret}}}}}),
        ),
        ("an unknown member", json!({"Later": {"x": [secret]}})),
    ]
}

/// How engines and runtimes name what they cannot do; `{}` is what they quote.
const ERRORS: [&str; 8] = [
    "could not start press: OCI runtime create failed: runc create failed: unable to start container process: exec: \"{}\": \
     executable file not found in $PATH: unknown",
    "could not create press (HTTP 400): invalid mode: {}",
    "unknown log opt '{}' for splunk log driver",
    "sysctl \"{}\" is not in a separate kernel namespace",
    "stat /srv/{}/x: no such file or directory",
    "invalid environment variable: KEY={}, found",
    "error while mounting volume '/v': failed to mount local volume: addr=h,{},vers=4",
    "rolled back to version 3: press: container create: [{}]",
];

fn manifest(options: &Value, is_text: bool) -> String {
    let options = if is_text { Value::from(options.to_string()) } else { options.clone() };
    let press = json!({"version": "1", "type": "docker", "status": "running", "restartPolicy": "always",
        "env": {"LOG": {"value": "debug"}}, "settings": {"image": "acme/press:1", "createOptions": options}});
    json!({"modulesContent": {"$edgeAgent": {"properties.desired": {"modules": {"press": press}}}}})
        .to_string()
}

fn quotes(document: &str) -> Quotes {
    Quotes::new(vec![Arc::new(Quotable::new(fragments(document)))])
}

#[test]
fn no_member_of_create_options_is_read_in_an_engines_error() {
    for is_text in [true, false] {
        for (member, options) in members(SECRET) {
            let document = manifest(&options, is_text);
            let shown = redact::json(&document, &Named::default(), &Quotes::default()).unwrap();
            assert!(!shown.contains(SECRET), "{member} is shown in the manifest");
            let quotes = quotes(&document);
            for error in ERRORS {
                for quoted in [SECRET, &SECRET[..7], &format!("app -k {SECRET}"), &format!("x{SECRET}y")] {
                    let text = error.replace("{}", quoted);
                    let is_cut = quoted.len() < SECRET.len();
                    let text = if is_cut {
                        format!("{}…", text.split_at(text.find(quoted).unwrap() + 7).0)
                    } else {
                        text
                    };
                    let hidden = quotes.hide(&text);
                    assert!(!hidden.contains(&SECRET[..7]), "{member}: {hidden}");
                    assert!(hidden.contains(REDACTED), "{member}: {hidden}");
                    // The same where an answer has it.
                    let answer = json!({"reason": text, "deep": [{"error": {"message": text}}]}).to_string();
                    let shown = redact::json(&answer, &Named::default(), &quotes).unwrap();
                    assert!(!shown.contains(&SECRET[..7]), "{member}: {shown}");
                }
            }
        }
    }
}

#[test]
fn environments_registries_and_properties_of_modules_are_quoted_too() {
    let document = json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {
            "runtime": {"settings": {"registryCredentials": {"r": {"address": "r.example", "username": "robot-7", "password": SECRET}}}},
            "modules": {"press": {"env": {"PIN": {"value": 48_151_623}, "TEXT": {"value": "a \"quoted\" b"}}}}}},
        "press": {"properties.desired": {"apiKey": "opensesame"}}}})
    .to_string();
    let quotes = quotes(&document);
    for (text, expected) in [
        ("login of robot-7 at r.example failed", "login of ***redacted*** at r.example failed"),
        ("press: PIN is 48151623", "press: PIN is ***redacted***"),
        ("press: exec \"a \\\"quoted\\\" b\"", "press: exec \"***redacted***\""),
        ("press: cannot opensesame now", "press: cannot ***redacted*** now"),
    ] {
        assert_eq!(quotes.hide(text), expected);
    }
}

#[test]
fn what_a_viewer_sees_of_the_manifest_is_shown_in_errors_and_ids_stay() {
    let options = json!({"Entrypoint": ["press", "--port=8080"], "HostConfig": {"Binds": ["vol:/hunter2xyz"],
        "PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}});
    let quotes = quotes(&manifest(&options, true));
    for text in [
        "press: image acme/press:1 cannot be pulled",
        "could not create press: port 8080 is already in use",
        "could not create press: invalid mode: hunter2xyz",
        "module press is running; log level debug",
    ] {
        assert_eq!(quotes.hide(text), text);
    }
    let secret = quotes_of_secret();
    let answer = json!({"id": SECRET, "displayName": format!("the {SECRET} press"), "count": 5}).to_string();
    assert_eq!(
        redact::json(&answer, &Named::default(), &secret).unwrap(),
        answer,
        "names and ids are no sentences"
    );
}

fn quotes_of_secret() -> Quotes {
    quotes(&manifest(&json!({"Cmd": [SECRET]}), true))
}

#[test]
fn a_sentence_that_was_cut_within_a_quote_does_not_show_its_begin() {
    let quotes = quotes_of_secret();
    for length in 4..SECRET.len() {
        for (before, after) in
            [("exec: \"", "…"), ("exec: ", "... (3 tries failed)"), (&*"long ".repeat(30), "")]
        {
            let text = format!("{before}{}{after}", &SECRET[..length]);
            assert_eq!(quotes.hide(&text), format!("{before}{REDACTED}{after}"));
        }
    }
}

proptest! {
    #[test]
    fn a_whole_quote_is_hidden_wherever_it_is(
        secret in "[a-z]{3,6}[0-9]{2,4}[ ,:\"/\\\\é-]{0,2}[a-z]{0,8}", before in "[a-z :\"]{0,20}", after in "[a-z :\"]{0,20}",
    ) {
        let secret = secret.trim();
        let quotes = quotes(&manifest(&json!({"Cmd": [format!("x {secret}"), secret]}), true));
        let text = format!("{before} {secret} {after}");
        let shown = quotes.hide(&text);
        prop_assert!(!shown.contains(secret), "{shown}");
    }

    #[test]
    fn any_text_is_searched_to_its_end(text in any::<String>(), secret in any::<String>()) {
        let quotes = quotes(&manifest(&json!({"Cmd": [secret]}), true));
        let _ = quotes.hide(&text);
        let _ = quotes.hide(&format!("{text} {secret}…"));
    }
}
