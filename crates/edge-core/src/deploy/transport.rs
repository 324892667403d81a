//! Modules that begin with AMQP, which the gateway does not speak: what is known of images, and what helps.
//!
//! Each module gets the variables of [`MQTT`] unless its manifest sets them. A module whose program does not read them, or whose
//! manifest sets another transport, cannot connect.

use super::desired::{Desired, DesiredModule};

/// Variables by which modules of Azure's SDKs choose MQTT.
pub const MQTT: [(&str, &str); 2] = [("ClientTransportType", "Mqtt_Tcp_Only"), ("UpstreamProtocol", "Mqtt")];

/// Parts of names of repositories, what the image is, and what helps.
const IMAGES: [(&str, &str, &str); 6] = [
    (
        "simulated-temperature-sensor",
        "the simulated temperature sensor",
        "it reads ClientTransportType, which this gateway sets to Mqtt_Tcp_Only when it creates the container",
    ),
    (
        "azureiotedge-functions",
        "a Functions module",
        "set ClientTransportType to Mqtt_Tcp_Only in its image or manifest, and use a base image that reads it",
    ),
    (
        "azure-functions",
        "a Functions module",
        "set ClientTransportType to Mqtt_Tcp_Only in its image or manifest, and use a base image that reads it",
    ),
    (
        "metrics-collector",
        "the metrics collector",
        "let it upload to Log Analytics (UploadTarget=AzureMonitor), or scrape the metrics by a module that speaks MQTT",
    ),
    ("modbus", "the Modbus module", "use a build of it that opens its ModuleClient with Mqtt_Tcp_Only"),
    ("lora", "a LoRaWAN module", "use a build of it that opens its ModuleClient with Mqtt_Tcp_Only"),
];

/// Why a module may not connect, and what helps. `None` for a module of which nothing of the kind is known.
pub fn amqp_advice(module: &DesiredModule) -> Option<String> {
    let spec = &module.spec;
    let from_options = spec.create_options.get("Env").and_then(|env| env.as_array());
    let from_options = from_options.into_iter().flatten().filter_map(|entry| entry.as_str()?.split_once('='));
    let variables = spec.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(from_options);
    let is_amqp = |value: &str| value.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("amqp"));
    for (name, value) in variables {
        let mqtt = MQTT.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        if let Some((name, mqtt)) = mqtt.filter(|_| is_amqp(value)) {
            return Some(format!(
                "the manifest sets {name}={value}, and this gateway does not speak AMQP; leave it out, or set it to {mqtt}"
            ));
        }
    }
    let image = spec.image.to_ascii_lowercase();
    let (_, what, helps) = IMAGES.iter().find(|(part, ..)| repository(&image).contains(part))?;
    Some(format!(
        "image {} is {what}, which begins with AMQP, and this gateway does not speak AMQP; {helps}",
        spec.image
    ))
}

/// The last parts of an image's name, without its registry, tag and digest.
fn repository(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or_default();
    let path = name.split_once('/').map_or(name, |(_, path)| path);
    path.rsplit_once(':').map_or(path, |(path, _)| path)
}

/// As [`amqp_advice`], for each module that has one: with its name.
pub fn amqp_advices(desired: &Desired) -> Vec<String> {
    let advices = desired.modules.iter().filter_map(|(name, module)| Some((name, amqp_advice(module)?)));
    advices.map(|(name, advice)| format!("module `{name}`: {advice}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::manifest::Manifest;
    use serde_json::{Value, json};

    fn advice(module: Value) -> Option<String> {
        let document = json!({"modulesContent": {"$edgeAgent": {"properties.desired": {
            "schemaVersion": "1.1", "modules": {"m": module}
        }}}});
        let desired = Desired::of(&Manifest::parse(document.to_string().as_bytes()).unwrap());
        amqp_advices(&desired).pop()
    }

    #[test]
    fn images_that_begin_with_amqp_are_known_with_what_helps() {
        for image in [
            "mcr.microsoft.com/azureiotedge-simulated-temperature-sensor:1.5",
            "mcr.microsoft.com/azureiotedge-functions:4",
            "mcr.microsoft.com/azure-functions/dotnet:4",
            "mcr.microsoft.com/azureiotedge-metrics-collector:1.1",
            "mcr.microsoft.com/azureiotedge/modbus:1.0",
            "loraedge/lorawannetworksrvmodule:2.2.1",
            "registry.example:5000/LoraEdge/lorabasicsstationmodule".to_ascii_lowercase().as_str(),
        ] {
            let advice = advice(json!({"settings": {"image": image}})).expect(image);
            assert!(advice.starts_with("module `m`: image ") && advice.contains("AMQP"), "{advice}");
        }
        for image in ["acme/filter:1", "modbus.example/filter:1", "acme/filter:modbus", "nginx"] {
            assert_eq!(advice(json!({"settings": {"image": image}})), None, "{image}");
        }
    }

    #[test]
    fn a_manifest_that_requests_amqp_is_warned_of_by_the_variable() {
        for (env, options, expected) in [
            (json!({"ClientTransportType": {"value": "Amqp_Tcp_Only"}}), "", true),
            (json!({"upstreamprotocol": {"value": "AmqpWs"}}), "", true),
            (json!({}), r#"{"env": ["UpstreamProtocol=Amqp"]}"#, true),
            (json!({"ClientTransportType": {"value": "Mqtt_WebSocket_Only"}}), "", false),
            (json!({"Protocol": {"value": "Amqp"}}), "", false),
        ] {
            let module = json!({"env": env, "settings": {"image": "acme/a:1", "createOptions": options}});
            let found = advice(module).is_some_and(|advice| advice.contains("the manifest sets"));
            assert_eq!(found, expected, "{env} {options}");
        }
    }
}
