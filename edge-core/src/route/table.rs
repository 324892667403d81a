//! All routes of a gateway: from who sent a message and on which output, to the places it must reach.

use std::collections::BTreeSet;

use schemas::names::{DeviceId, Identity, ModuleId};

use super::grammar::{self, Output, Sink, Source};

/// Why a route was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("route `{route}`: found {found}; {allowed}")]
pub struct RouteError {
    /// The route's name.
    pub route: String,
    /// What stood there.
    pub found: String,
    /// What may stand there.
    pub allowed: String,
}

/// The routes in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteTable {
    /// In the order of their names.
    routes: Vec<(Source, Sink)>,
}

impl RouteTable {
    /// Reads all routes, given by name and text. A blank text is no route, as in edgeHub.
    ///
    /// # Errors
    /// [`RouteError`] for the first one that is wrong: all of them hold, or none.
    pub fn parse<'a>(routes: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, RouteError> {
        let mut parsed = Vec::new();
        for (name, text) in routes {
            if text.trim().is_empty() {
                continue;
            }
            let route = grammar::parse(text).map_err(|why| RouteError {
                route: name.to_owned(),
                found: why.found,
                allowed: why.allowed,
            })?;
            parsed.push(route);
        }
        Ok(Self { routes: parsed })
    }

    /// Where telemetry of this client goes: each place once, upstream first, inputs by module and name. `output` is the
    /// one that the message names. Empty: no route wants it.
    pub fn sinks(&self, from: &Identity, gateway: &DeviceId, output: Option<&str>) -> Vec<Sink> {
        // A module of a leaf device is not a module of this gateway: to the routes it is a leaf device.
        let module = from.module.as_ref().filter(|_| from.device == *gateway);
        let module = module.map(|module| (module.as_str(), output.filter(|output| !output.is_empty())));
        let sinks: BTreeSet<&Sink> =
            self.routes.iter().filter(|(source, _)| source.matches(module)).map(|(_, sink)| sink).collect();
        sinks.into_iter().cloned().collect()
    }

    /// Every module input that some route leads to.
    pub fn inputs(&self) -> BTreeSet<(ModuleId, String)> {
        self.routes
            .iter()
            .filter_map(|(_, sink)| match sink {
                Sink::Upstream => None,
                Sink::Input { module, input } => Some((module.clone(), input.clone())),
            })
            .collect()
    }
}

impl Source {
    /// Names are compared without regard to case, as edgeHub does.
    fn matches(&self, from: Option<(&str, Option<&str>)>) -> bool {
        match (self, from) {
            (Self::All, _) => true,
            (Self::Modules { .. }, None) => false,
            (Self::Modules { module, output }, Some((from, on))) => {
                module.as_ref().is_none_or(|module| module.eq_ignore_ascii_case(from))
                    && match output {
                        Output::Any => true,
                        Output::Some => on.is_some(),
                        Output::Named(name) => on.is_some_and(|on| on.eq_ignore_ascii_case(name)),
                    }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(routes: &[&str]) -> RouteTable {
        RouteTable::parse(routes.iter().map(|route| ("r", *route))).unwrap()
    }

    fn reaches(source: &str, from: &str, output: Option<&str>) -> bool {
        let table = table(&[&format!("FROM {source} INTO $upstream")]);
        !table.sinks(&from.parse().unwrap(), &"gw".parse().unwrap(), output).is_empty()
    }

    #[test]
    fn a_source_matches_by_segment() {
        // Sender and output, and then whether each source matches it.
        let senders = [
            ("leaf", None),
            ("leaf/cam", Some("o")),
            ("gw/cam", None),
            ("gw/cam", Some("o")),
            ("gw/camera1", Some("p")),
        ];
        for (source, matches) in [
            ("/*", [true, true, true, true, true]),
            ("/", [true, true, true, true, true]),
            ("/messages", [true, true, true, true, true]),
            ("/messages/*", [true, true, true, true, true]),
            ("/MESSAGES/Modules/*", [false, false, true, true, true]),
            ("/messages/modules/cam", [false, false, true, true, false]),
            ("/messages/modules/CAM/*", [false, false, true, true, false]),
            ("/messages/modules/cam/outputs/*", [false, false, false, true, false]),
            ("/messages/modules/cam/outputs/O", [false, false, false, true, false]),
            ("/messages/modules/cam/outputs/p", [false, false, false, false, false]),
            ("/messages/modules/*/outputs/*", [false, false, false, true, true]),
            ("/messages/modules/*/outputs/p", [false, false, false, false, true]),
        ] {
            let found = senders.map(|(from, output)| reaches(source, from, output));
            assert_eq!(found, matches, "{source}");
        }
    }

    #[test]
    fn a_message_reaches_each_place_once_in_a_fixed_order() {
        let table = table(&[
            "FROM /messages/modules/sensor/* INTO BrokeredEndpoint(\"/modules/filter/inputs/readings\")",
            "select * from /messages/* into $UPSTREAM",
            "FROM /messages/modules/sensor/outputs/t INTO brokeredendpoint( '/modules/filter/inputs/readings/' )",
            "FROM /* INTO $upstream",
            "  ",
            "FROM /*\n  INTO\tBrokeredEndpoint(\"modules/audit/inputs/all\")",
        ]);
        let input =
            |module: &str, input: &str| Sink::Input { module: module.parse().unwrap(), input: input.into() };
        let gateway = "gw".parse().unwrap();
        assert_eq!(
            table.sinks(&"gw/sensor".parse().unwrap(), &gateway, Some("t")),
            [Sink::Upstream, input("audit", "all"), input("filter", "readings")]
        );
        assert_eq!(
            table.sinks(&"leaf".parse().unwrap(), &gateway, None),
            [Sink::Upstream, input("audit", "all")]
        );
        let inputs: Vec<_> = table.inputs().into_iter().map(|(m, i)| format!("{m}/{i}")).collect();
        assert_eq!(inputs, ["audit/all", "filter/readings"]);
    }

    #[test]
    fn a_wrong_route_is_refused_by_name_with_what_was_found() {
        for (text, found) in [
            ("INTO $upstream", "\"INTO\""),
            ("FROM", "source the end of the route"),
            ("FROM /messages/*", "the end of the route"),
            ("SELECT a FROM /* INTO $upstream", "SELECT a"),
            ("FROM /* WHERE a = 1 INTO $upstream", "a WHERE clause"),
            ("FROM messages INTO $upstream", "source \"messages\""),
            ("FROM /twinChangeNotifications INTO $upstream", "source \"/twinChangeNotifications\""),
            ("FROM /messages/modules/cam* INTO $upstream", "source \"/messages/modules/cam*\""),
            ("FROM /messages//modules INTO $upstream", "source \"/messages//modules\""),
            ("FROM /messages/modules/m/inputs/i INTO $upstream", "source \"/messages/modules/m/inputs/i\""),
            (
                "FROM /messages/modules/m/outputs/o/p INTO $upstream",
                "source \"/messages/modules/m/outputs/o/p\"",
            ),
            ("FROM /* INTO upstream", "sink \"upstream\""),
            ("FROM /* INTO $upstream extra", "sink \"$upstream extra\""),
            ("FROM /* INTO BrokeredEndpoint(\"/modules/m\")", r#"sink "BrokeredEndpoint(\"/modules/m\")""#),
            (
                "FROM /* INTO BrokeredEndpoint(/modules/m/inputs/i)",
                r#"sink "BrokeredEndpoint(/modules/m/inputs/i)""#,
            ),
            ("FROM /* INTO BrokeredEndpoint", "sink \"BrokeredEndpoint\""),
        ] {
            let error = RouteTable::parse([("good", "FROM /* INTO $upstream"), ("bad", text)]).unwrap_err();
            assert_eq!((error.route.as_str(), error.found.as_str()), ("bad", found), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(?i)(select|from|where|into|\\*|/|m|\\$upstream|BrokeredEndpoint|[()\"' ]|é){0,24}") {
            let _ = RouteTable::parse([("r", text.as_str())]);
        }
    }
}
