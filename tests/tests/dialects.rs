//! What Azure's SDKs for C#, Java and C put on the wire, byte by byte, against a real gateway and a real central; read in
//! their sources of 2026. Beside them what code says that was written by hand from IoT Hub's pages. Python and Node connect
//! as themselves in sdk.rs and modules.rs.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edge_core::access::sas;
use serde_json::{Value, json};
use site_tests::STEP;
use site_tests::raw::packet;
use site_tests::rest::{Rest, eventually};
use site_tests::site::Site;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How an SDK writes a SAS token.
#[derive(Clone, Copy)]
enum Token {
    /// Resource and signature percent-encoded, hexadecimal digits in capitals.
    Encoded,
    /// The resource as it is, the signature encoded.
    Plain,
    /// The resource as it is, small hexadecimal digits, and a key name that is empty.
    PlainSmallNamed,
}

/// One SDK as one kind of client.
struct Dialect {
    sdk: &'static str,
    is_module: bool,
    /// What follows `{hub}/{client id}` in the user name.
    user: &'static str,
    token: Token,
    keep_alive_secs: u16,
    /// What it subscribes to; all that stand in one list go in one packet.
    filters: &'static [&'static [(&'static str, u8)]],
    /// What follows `…/messages/events` for a message with the property `line` = `A&B 1/2`, of JSON, on output `out1`.
    telemetry: &'static str,
    /// The request id of a twin GET, and its body.
    twin_get: (&'static str, &'static str),
    /// What follows `$rid=` in a patch of the reported section.
    reported: &'static str,
}

const CSHARP: &str = "/?api-version=2020-09-30&DeviceClientType=Microsoft.Azure.Devices.Client%2F1.42.3%20%28.NET%206.0.36%3B%20Linux%205.15.0%3B%20X64%3B%20%7B3F2504E0-4F89-11D3-9A0C-0305E82C3301%7D%29";
const CSHARP_MODEL: &str = "/?api-version=2020-09-30&DeviceClientType=Microsoft.Azure.Devices.Client%2F1.42.3&auth-chain=&model-id=dtmi%3Acom%3Aexample%3APress%3B1";
const JAVA: &str = "/?api-version=2020-09-30&DeviceClientType=com.microsoft.azure.sdk.iot.iot-device-client%2F2.5.0%20%28Java%2017.0.15%3B%20Linux%205.15%3B%20amd64%29";
const C: &str =
    "/?api-version=2020-09-30&DeviceClientType=iothubclient%2f1.14.0%20(native%3b%20Linux%3b%20x86_64)";
const C_MODEL: &str = "/?api-version=2020-09-30&DeviceClientType=iothubclient%2f1.14.0&model-id=dtmi%3acom%3aexample%3aPress%3b1";
/// As IoT Hub's page has it today, and as it had it in 2017.
const PAGE: &str = "/?api-version=2021-04-12";
const OLD_PAGE: &str = "/api-version=2016-11-14";

const DEVICE_FILTERS: &[&[(&str, u8)]] = &[
    &[("devices/{d}/messages/devicebound/#", 1)],
    &[("$iothub/methods/POST/#", 1)],
    &[("$iothub/twin/res/#", 1)],
    &[("$iothub/twin/PATCH/properties/desired/#", 1)],
];
/// The SDK for C asks for all that it has at once.
const C_DEVICE_FILTERS: &[&[(&str, u8)]] = &[&[
    ("$iothub/twin/res/#", 0),
    ("$iothub/twin/PATCH/properties/desired/#", 0),
    ("devices/{d}/messages/devicebound/#", 1),
    ("$iothub/methods/POST/#", 0),
]];
const MODULE_FILTERS: &[&[(&str, u8)]] = &[
    &[("devices/{d}/modules/{m}/#", 1)],
    &[("$iothub/methods/POST/#", 1)],
    &[("$iothub/twin/res/#", 1)],
    &[("$iothub/twin/PATCH/properties/desired/#", 1)],
];
const JAVA_MODULE_FILTERS: &[&[(&str, u8)]] = &[
    &[("devices/{d}/modules/{m}/inputs/#", 1)],
    // Of a module that was told no gateway's name.
    &[("devices/{d}/modules/{m}/messages/devicebound/#", 1)],
    &[("$iothub/methods/POST/#", 1)],
    &[("$iothub/twin/res/#", 1), ("$iothub/twin/PATCH/properties/desired/#", 1)],
];

fn dialects() -> Vec<Dialect> {
    let guid = "5f2a1c1e-7a35-4a93-8f0a-0f5e6d1f9b11";
    let device = |sdk, user, token| Dialect {
        sdk,
        is_module: false,
        user,
        token,
        keep_alive_secs: 240,
        filters: DEVICE_FILTERS,
        telemetry: "",
        twin_get: (guid, ""),
        reported: guid,
    };
    vec![
        Dialect {
            // It ends a bag with a slash.
            telemetry: "/%24.mid=5f2a&%24.ct=application%2Fjson&%24.ce=utf-8&line=A%26B%201%2F2/",
            keep_alive_secs: 300,
            ..device("csharp", CSHARP, Token::Encoded)
        },
        Dialect {
            telemetry: "/line=A%26B%201%2F2&%24.ct=application%2Fjson&%24.ce=utf-8&%24.sub=thermostat1/",
            ..device("csharp-model", CSHARP_MODEL, Token::Encoded)
        },
        Dialect {
            telemetry: "/%24.mid=1&%24.ce=utf-8&%24.ct=application%2Fjson&line=A%26B%201%2F2",
            // The version that it patches stands behind the request id.
            reported: "7&$version=0",
            twin_get: ("6", ""),
            keep_alive_secs: 230,
            ..device("java", JAVA, Token::Plain)
        },
        Dialect {
            // System properties follow the application's, and small hexadecimal digits.
            telemetry: "/line=A%26B%201%2f2&%24.ct=application%2fjson&%24.ce=utf-8",
            filters: C_DEVICE_FILTERS,
            twin_get: ("2", ""),
            reported: "3",
            ..device("c", C, Token::PlainSmallNamed)
        },
        Dialect {
            // Not told to encode, it writes values as they are.
            telemetry: "/line=A%26B 1/2&%24.ct=application/json&%24.ce=utf-8",
            filters: C_DEVICE_FILTERS,
            twin_get: ("2", ""),
            reported: "3",
            ..device("c-model", C_MODEL, Token::PlainSmallNamed)
        },
        Dialect {
            telemetry: "/?line=A%26B%201%2F2&%24.ct=application%2Fjson&%24.ce=utf-8",
            twin_get: ("get_twin", ""),
            reported: "reported_prop",
            ..device("page", PAGE, Token::Encoded)
        },
        Dialect {
            telemetry: "/$.ct=application%2Fjson&$.ce=utf-8&line=A%26B%201%2F2",
            twin_get: ("1", " "),
            reported: "2",
            ..device("old-page", OLD_PAGE, Token::Encoded)
        },
        Dialect {
            is_module: true,
            filters: MODULE_FILTERS,
            telemetry: "/%24.on=out1&%24.ct=application%2Fjson&%24.ce=utf-8&line=A%26B%201%2F2/",
            ..device("csharp", CSHARP, Token::Encoded)
        },
        Dialect {
            is_module: true,
            filters: JAVA_MODULE_FILTERS,
            telemetry: "/%24.on=out1&%24.cdid=forged&%24.ce=utf-8&%24.ct=application%2Fjson&line=A%26B%201%2F2/",
            reported: "9&$version=1",
            ..device("java", JAVA, Token::Plain)
        },
        Dialect {
            is_module: true,
            filters: &[
                &[("devices/{d}/modules/{m}/#", 1), ("$iothub/methods/POST/#", 0)],
                &[("$iothub/twin/res/#", 0), ("$iothub/twin/PATCH/properties/desired/#", 0)],
            ],
            telemetry: "/line=A%26B%201%2f2&%24.on=out1&%24.ct=application%2fjson&%24.ce=utf-8",
            ..device("c", C, Token::PlainSmallNamed)
        },
    ]
}

const HUB: &str = "localhost";
const GATEWAY: &str = "dialect-gateway";

impl Dialect {
    /// What it is called as a device, or as a module of the gateway.
    fn name(&self) -> String {
        if self.is_module { format!("m_{}", self.sdk) } else { format!("d-{}", self.sdk) }
    }

    fn client_id(&self) -> String {
        if self.is_module { format!("{GATEWAY}/{}", self.name()) } else { self.name() }
    }

    fn path(&self) -> String {
        schemas::topics::identity_prefix(&self.client_id().parse().unwrap())
    }

    fn password(&self, key: &[u8]) -> String {
        let expires = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 3600;
        let plain = format!("{HUB}/{}", self.path());
        let resource = match self.token {
            Token::Encoded => plain.replace('/', "%2F"),
            Token::Plain | Token::PlainSmallNamed => plain,
        };
        let signature = STANDARD.encode(sas::sign(key, format!("{resource}\n{expires}").as_bytes()));
        let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        match self.token {
            Token::Encoded | Token::Plain => {
                format!("SharedAccessSignature sr={resource}&sig={signature}&se={expires}")
            }
            Token::PlainSmallNamed => {
                let signature = signature.replace("%2B", "%2b").replace("%2F", "%2f").replace("%3D", "%3d");
                format!("SharedAccessSignature sr={resource}&sig={signature}&se={expires}&skn=")
            }
        }
    }
}

/// A connection and the packets on it.
struct Wire {
    stream: TcpStream,
    /// Messages that came while something else was waited for.
    messages: Vec<(String, Vec<u8>)>,
    last_id: u16,
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    out.extend(text.as_bytes());
}

impl Wire {
    /// Connects as the SDKs do: level 4, user name and password, no clean session, no will.
    async fn open(port: u16, dialect: &Dialect, key: &[u8]) -> Self {
        let mut rest = Vec::new();
        text(&mut rest, "MQTT");
        rest.extend([4, 0xc0]);
        rest.extend(dialect.keep_alive_secs.to_be_bytes());
        text(&mut rest, &dialect.client_id());
        text(&mut rest, &format!("{HUB}/{}{}", dialect.client_id(), dialect.user));
        text(&mut rest, &dialect.password(key));
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let mut wire = Self { stream, messages: Vec::new(), last_id: 0 };
        wire.stream.write_all(&packet(0x10, &rest)).await.unwrap();
        assert_eq!(wire.packet().await, (0x20, vec![0, 0]), "{}: CONNACK", dialect.sdk);
        wire
    }

    async fn packet(&mut self) -> (u8, Vec<u8>) {
        let read = async {
            let first = self.stream.read_u8().await.unwrap();
            let (mut length, mut shift) = (0_usize, 0);
            loop {
                let digit = self.stream.read_u8().await.unwrap();
                length |= usize::from(digit & 0x7f) << shift;
                shift += 7;
                if digit & 0x80 == 0 {
                    break;
                }
            }
            let mut rest = vec![0; length];
            self.stream.read_exact(&mut rest).await.unwrap();
            (first, rest)
        };
        tokio::time::timeout(STEP, read).await.expect("the gateway said nothing")
    }

    /// The next packet that is no message; messages are kept and acknowledged.
    async fn answer(&mut self) -> (u8, Vec<u8>) {
        loop {
            let (first, rest) = self.packet().await;
            if first >> 4 != 3 {
                return (first, rest);
            }
            self.keep(first, &rest).await;
        }
    }

    async fn keep(&mut self, first: u8, rest: &[u8]) {
        let length = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
        let topic = String::from_utf8(rest[2..2 + length].to_vec()).unwrap();
        let has_id = first & 0x06 != 0;
        let begins = 2 + length + if has_id { 2 } else { 0 };
        if has_id {
            let ack = [0x40, 2, rest[2 + length], rest[3 + length]];
            self.stream.write_all(&ack).await.unwrap();
        }
        self.messages.push((topic, rest[begins..].to_vec()));
    }

    /// The first message on a topic that begins so.
    async fn message(&mut self, prefix: &str) -> (String, Vec<u8>) {
        loop {
            if let Some(at) = self.messages.iter().position(|(topic, _)| topic.starts_with(prefix)) {
                return self.messages.remove(at);
            }
            let (first, rest) = self.packet().await;
            if first >> 4 == 3 {
                self.keep(first, &rest).await;
            }
        }
    }

    async fn subscribe(&mut self, filters: &[(String, u8)]) {
        self.last_id += 1;
        let mut rest = self.last_id.to_be_bytes().to_vec();
        for (filter, qos) in filters {
            text(&mut rest, filter);
            rest.push(*qos);
        }
        self.stream.write_all(&packet(0x82, &rest)).await.unwrap();
        let granted: Vec<u8> = filters.iter().map(|(_, qos)| *qos).collect();
        let expected = [&self.last_id.to_be_bytes()[..], &granted].concat();
        assert_eq!(self.answer().await, (0x90, expected), "SUBACK for {filters:?}");
    }

    /// Publishes at QoS 1 and waits for the PUBACK.
    async fn publish(&mut self, topic: &str, body: &str) {
        self.last_id += 1;
        let mut rest = Vec::new();
        text(&mut rest, topic);
        rest.extend(self.last_id.to_be_bytes());
        rest.extend(body.as_bytes());
        self.stream.write_all(&packet(0x32, &rest)).await.unwrap();
        assert_eq!(self.answer().await, (0x40, self.last_id.to_be_bytes().to_vec()), "PUBACK for {topic}");
    }
}

/// Everything that an SDK does with its topics.
async fn everything_works(site: &Site, dialect: &Dialect, key: &[u8]) {
    let rest: Rest = site.rest().unwrap().clone();
    let (sdk, name) = (dialect.sdk, dialect.name());
    let mut wire = Wire::open(site.gateway_mqtt, dialect, key).await;
    for filters in dialect.filters {
        let filled = |filter: &str| {
            let device = if dialect.is_module { GATEWAY } else { &name };
            filter.replace("{d}", device).replace("{m}", &name)
        };
        let filters: Vec<_> = filters.iter().map(|(filter, qos)| (filled(filter), *qos)).collect();
        wire.subscribe(&filters).await;
    }

    // Telemetry, its properties as central has them.
    let body = json!({"from": dialect.client_id()});
    let topic = format!("{}/messages/events{}", dialect.path(), dialect.telemetry);
    wire.publish(&topic, &body.to_string()).await;
    let from = if dialect.is_module { GATEWAY } else { &name };
    let message = eventually(&format!("{sdk}'s message in central"), STEP, || async {
        Ok(rest.messages(from).await?.into_iter().find(|message| message["body"] == body))
    })
    .await
    .unwrap();
    let properties = &message["properties"];
    assert_eq!(properties["line"], "A&B 1/2", "{sdk}: {message}");
    assert_eq!(properties["$.ct"], "application/json", "{sdk}: {message}");
    if dialect.is_module {
        assert_eq!(
            (&message["module"], &properties["$.on"]),
            (&json!(name), &json!("out1")),
            "{sdk}: {message}"
        );
    }

    // The twin, under the SDK's own request ids.
    let (request_id, body) = dialect.twin_get;
    wire.publish(&format!("$iothub/twin/GET/?$rid={request_id}"), body).await;
    let (topic, twin) = wire.message("$iothub/twin/res/").await;
    assert_eq!(topic, format!("$iothub/twin/res/200/?$rid={request_id}"), "{sdk}");
    let twin: Value = serde_json::from_slice(&twin).unwrap();
    assert!(twin["desired"]["$version"].is_u64() && twin["reported"]["$version"].is_u64(), "{sdk}: {twin}");
    let patch = format!("$iothub/twin/PATCH/properties/reported/?$rid={}", dialect.reported);
    wire.publish(&patch, &json!({"sdk": sdk}).to_string()).await;
    let (topic, _) = wire.message("$iothub/twin/res/").await;
    let request_id = dialect.reported.split('&').next().unwrap();
    assert!(
        topic.starts_with(&format!("$iothub/twin/res/204/?$rid={request_id}&$version=")),
        "{sdk}: {topic}"
    );
    let of = if dialect.is_module { format!("{GATEWAY}/modules/{name}") } else { name.clone() };
    rest.patch(&format!("/api/devices/{of}/properties"), &json!({"wish": sdk})).await.unwrap();
    let (topic, desired) = wire.message("$iothub/twin/PATCH/properties/desired/").await;
    let desired: Value = serde_json::from_slice(&desired).unwrap();
    assert_eq!(desired["wish"], sdk, "{topic}");
    assert_eq!(topic, format!("$iothub/twin/PATCH/properties/desired/?$version={}", desired["$version"]));

    // A direct method.
    let call = {
        let (rest, of) = (rest.clone(), of.clone());
        let request = json!({"request": {"to": sdk}, "responseTimeout": 60});
        tokio::spawn(async move { rest.post(&format!("/api/devices/{of}/commands/echo"), &request).await })
    };
    let (topic, payload) = wire.message("$iothub/methods/POST/echo/").await;
    let request_id = topic.strip_prefix("$iothub/methods/POST/echo/?$rid=").unwrap().to_owned();
    let payload = String::from_utf8(payload).unwrap();
    wire.publish(&format!("$iothub/methods/res/201/?$rid={request_id}"), &payload).await;
    let answer = call.await.unwrap().unwrap();
    assert_eq!(
        (&answer["responseCode"], &answer["response"]),
        (&json!(201), &json!({"to": sdk})),
        "{answer}"
    );

    // What comes to it: Java reads properties from the first of the system's on, C# and Node want the slash.
    if !dialect.is_module {
        let message = json!({"body": {"go": 1}, "messageId": "m-1", "properties": {"a": "b"}});
        rest.post(&format!("/api/ext/devices/{name}/messages/devicebound"), &message).await.unwrap();
        let prefix = format!("devices/{name}/messages/devicebound/");
        let (topic, _) = wire.message(&prefix).await;
        let bag = topic.strip_prefix(&prefix).unwrap();
        assert!(bag.starts_with("%24.mid=m-1&") && bag.contains("&a=b"), "{sdk}: {bag}");
    } else if sdk == "java" {
        // What the devices before it sent: the properties of the system go before the application's.
        let prefix = format!("devices/{GATEWAY}/modules/{name}/inputs/in1/");
        let (topic, _) = wire.message(&prefix).await;
        let bag = topic.strip_prefix(&prefix).unwrap();
        let is_system: Vec<bool> = bag.split('&').map(|pair| pair.starts_with("%24.")).collect();
        assert!(is_system.is_sorted_by(|before, after| before >= after), "{bag}");
        assert!(is_system[0] && bag.contains("line=A%26B%201%2F2"), "{bag}");
    }
}

/// Modules that are known and have no image; each hears on `in1` what the devices send.
fn manifest(modules: &[String]) -> Value {
    let mut manifest: Value = serde_json::from_str(include_str!("../../manifests/demo.json")).unwrap();
    let content = manifest["modulesContent"].as_object_mut().unwrap();
    content.retain(|key, _| key.starts_with('$'));
    let module = json!({
        "version": "1.0", "type": "docker", "status": "running", "restartPolicy": "never",
        "imagePullPolicy": "never", "settings": {"image": "lineside-test/none:1", "createOptions": "{}"},
    });
    content["$edgeAgent"]["properties.desired"]["modules"] =
        modules.iter().map(|name| (name.clone(), module.clone())).collect::<serde_json::Map<_, _>>().into();
    content["$edgeHub"]["properties.desired"]["routes"] = json!({
        "up": "FROM /messages/* INTO $upstream",
        "in": "FROM /messages/* WHERE NOT IS_DEFINED($connectionModuleId) INTO BrokeredEndpoint(\"/modules/m_java/inputs/in1\")",
    });
    manifest
}

#[tokio::test]
async fn csharp_java_and_c_find_every_topic_answered_as_they_write_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), GATEWAY, false).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    let dialects = dialects();
    let modules: Vec<String> = dialects.iter().filter(|d| d.is_module).map(Dialect::name).collect();
    let file = dir.path().join("manifest.json");
    std::fs::write(&file, manifest(&modules).to_string()).unwrap();
    // As an operator assigns it: central then knows the modules, whose methods it calls.
    site_tests::job::assign(site.rest().unwrap(), GATEWAY, "dialects", &file).await.unwrap();
    let secret = std::fs::read(dir.path().join("gateway/module-key")).unwrap();
    for dialect in &dialects {
        let key = if dialect.is_module {
            sas::sign(&secret, format!("key {}", dialect.name()).as_bytes())
        } else {
            site.add_leaf(&dialect.name(), Duration::ZERO).await.unwrap().key
        };
        // By its whole name: those of some are the beginnings of others'.
        eventually(&format!("the gateway knows {}", dialect.client_id()), STEP, || async {
            let name = dialect.name();
            let is_known = if dialect.is_module {
                site.agent_json(&["status"]).await?["modules"].get(&name).is_some()
            } else {
                let listed = site.agent_json(&["device", "list"]).await?;
                listed["devices"].as_array().into_iter().flatten().any(|device| device["id"] == name)
            };
            Ok(is_known.then_some(()))
        })
        .await
        .unwrap();
        everything_works(&site, dialect, &key).await;
        println!("{} as a {}", dialect.sdk, if dialect.is_module { "module" } else { "device" });
    }

    site.end(true).await.unwrap();
}
