//! Manifests as files: templates are filled in, layers are laid over what the daemon has, and what may be a mistake is warned of.

use std::path::Path;

use anyhow::Context as _;
use edge_core::deploy;
use edge_core::deploy::desired::Desired;
use edge_core::deploy::transport::amqp_advices;
use edge_core::route::RouteTable;
use edge_hub::logging;
use edge_tls::input_file;
use schemas::manifest::{DOCUMENT_BYTES_MAX, Manifest, ManifestError};
use schemas::names::ModuleId;
use serde_json::Value;

use super::exit::Exit;
use super::global_options::GlobalOptions;

/// A manifest that was read and checked.
pub(super) struct ManifestFile {
    /// As it is given to the daemon.
    pub(super) document: Value,
    pub(super) desired: Desired,
    pub(super) routes: RouteTable,
    /// What may be a mistake.
    pub(super) warnings: Vec<String>,
}

/// Reads a manifest; a wrong one ends the process with code 2. The daemon is needed only for a layered manifest, which it has the base of.
pub(super) async fn read(options: &GlobalOptions, file: &Path) -> Result<ManifestFile, Exit> {
    let text = input_file::read_or_stdin(file, DOCUMENT_BYTES_MAX as u64)
        .with_context(|| format!("reading {}", file.display()))?;
    let mut document = Manifest::document(&text).map_err(|error| refused(file, error))?;
    if is_template(file, &document) {
        let variable = |name: &str| std::env::var(name).ok();
        fill(&mut document, "manifest", &variable).map_err(|error| refused(file, error))?;
    }
    let has = if Manifest::has_layer(&document) {
        options.request("GET", "/deployment", None).await?
    } else {
        Value::Null
    };
    let current = |module: &ModuleId| has[module.as_str()].as_object().cloned().unwrap_or_default();
    let checked = Manifest::parse_over(&document, &current).and_then(|manifest| deploy::check(&manifest));
    let (desired, routes) = checked.map_err(|error| refused(file, error))?;
    let mut warnings: Vec<String> = Manifest::warnings(&document).iter().map(ToString::to_string).collect();
    warnings.extend(amqp_advices(&desired));
    Ok(ManifestFile { document, desired, routes, warnings })
}

/// Prints warnings where errors go, so that what a program reads stays as it is.
pub(super) fn warn(warnings: &[String]) {
    for warning in warnings {
        logging::print_error(&format!("WARNING  {warning}"));
    }
}

pub(super) fn refused(file: &Path, error: ManifestError) -> Exit {
    Exit(2, anyhow::Error::from(error).context(format!("{} refused", file.display())))
}

/// Whether Azure's tools would build a deployment of this file first.
fn is_template(file: &Path, document: &Value) -> bool {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.contains(".template.") || document.get("$schema-template").is_some()
}

/// Replaces `${NAME}`, and `$NAME` in capitals, by variables of the environment. Names of images (`${MODULES.…}`) are made
/// by a build, which the message says.
fn fill(
    value: &mut Value,
    path: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<(), ManifestError> {
    match value {
        Value::String(text) if text.contains('$') => {
            *text = filled(text, path, variable)?;
            Ok(())
        }
        Value::Array(items) => items
            .iter_mut()
            .enumerate()
            .try_for_each(|(index, item)| fill(item, &format!("{path}[{index}]"), variable)),
        Value::Object(members) => {
            members.iter_mut().try_for_each(|(key, value)| fill(value, &format!("{path}.{key}"), variable))
        }
        _ => Ok(()),
    }
}

fn filled(
    text: &str,
    path: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<String, ManifestError> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('$') {
        out.push_str(before);
        let is_inside = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        let braced = behind.strip_prefix('{').and_then(|inside| inside.split_once('}'));
        let (name, after) = match braced {
            Some(braced) => braced,
            None => behind.split_at(behind.find(|c| !is_inside(c)).unwrap_or(behind.len())),
        };
        // `$upstream` and `$edgeHub` are no variables.
        if name.is_empty() || (braced.is_none() && !name.starts_with(|c: char| c.is_ascii_uppercase())) {
            out.push('$');
            rest = behind;
            continue;
        }
        let Some(found) = variable(name) else {
            let allowed = if name.starts_with("MODULES.") || name.starts_with("MODULEDIR<") {
                "write the image's own name; `iotedgedev build` and `iotedgedev genconfig` make it from the modules' sources"
            } else {
                "set the variable in the environment of this command"
            };
            return Err(ManifestError {
                path: path.to_owned(),
                found: format!("the variable `{name}` of a template, which is not set"),
                allowed: allowed.to_owned(),
            });
        };
        out.push_str(&found);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(name: &str) -> Option<String> {
        let value = match name {
            "TAG" => "1.2",
            "CONTAINER_REGISTRY_PASSWORD" => "a\"b$TAG",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn a_template_is_filled_in_from_the_environment_and_nothing_else_is_a_variable() {
        let mut document = json!({
            "image": "acme/a:${TAG}", "password": "$CONTAINER_REGISTRY_PASSWORD", "route": "FROM /* INTO $upstream",
            "edge": ["$edgeAgent", "a$", "$$", "$ {TAG}", "5$TAG/x", "${TAG"], "cost": 5
        });
        fill(&mut document, "manifest", &set).unwrap();
        let expected = json!({
            // What a variable holds is not looked into again.
            "image": "acme/a:1.2", "password": "a\"b$TAG", "route": "FROM /* INTO $upstream",
            "edge": ["$edgeAgent", "a$", "$$", "$ {TAG}", "51.2/x", "${TAG"], "cost": 5
        });
        assert_eq!(document, expected);
    }

    #[test]
    fn a_variable_that_is_not_set_is_refused_with_what_to_do() {
        for (text, name, helps) in [
            ("a:${VERSION}", "VERSION", "environment"),
            ("$REGISTRY/a", "REGISTRY", "environment"),
            ("${MODULES.filter.amd64}", "MODULES.filter.amd64", "iotedgedev"),
        ] {
            let error = fill(&mut json!({"image": text}), "manifest", &set).unwrap_err();
            assert_eq!(error.path, "manifest.image");
            assert!(error.found.contains(&format!("`{name}`")) && error.allowed.contains(helps), "{error}");
        }
    }

    #[test]
    fn a_file_is_a_template_by_its_name_or_its_key() {
        for (file, document, expected) in [
            ("deployment.template.json", json!({}), true),
            ("deployment.template.line-1.json", json!({}), true),
            ("deployment.json", json!({"$schema-template": "4.0.0"}), true),
            ("deployment.json", json!({"modulesContent": {}}), false),
        ] {
            assert_eq!(is_template(Path::new(file), &document), expected, "{file}");
        }
    }
}
