//! The text of `edge-agent history`.

use edge_hub::terminal::{Output, Table, Tone};
use schemas::control::PastDeployment;

pub(super) fn history_text(deployments: &[PastDeployment], output: Output) -> String {
    if deployments.is_empty() {
        return "no deployment yet".to_owned();
    }
    let mut table = Table::new(&["NUMBER", "VERSION", "AT", "BY", "STATE", "REASON"]);
    for deployment in deployments {
        let tone = match deployment.state.as_str() {
            "verified" => Tone::Good,
            "rolledBack" | "held" => Tone::Bad,
            _ => Tone::Plain,
        };
        let sign = if deployment.in_force { "*" } else { "" };
        let back = deployment.rolled_back_to.map(|to| format!("back to {to}: ")).unwrap_or_default();
        let cells = [
            format!("{}{sign}", deployment.number),
            deployment.version.to_string(),
            deployment.at.clone(),
            deployment.source.clone(),
            deployment.state.clone(),
            format!("{back}{}", deployment.reason.as_deref().unwrap_or_default()),
        ];
        let tones = [Tone::Plain, Tone::Plain, Tone::Plain, Tone::Plain, tone, Tone::Plain];
        table.row(tones.into_iter().zip(cells));
    }
    let mut text = table.aligned(output);
    for deployment in deployments {
        for change in &deployment.changes {
            text.push_str(&format!("\n{}: {change}", deployment.number));
        }
    }
    text.push_str("\n* in force");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_deployment_is_a_row_and_each_change_a_line() {
        let of = |number, state: &str, in_force| PastDeployment {
            number,
            version: number + 10,
            at: "2026-11-30T01:00:00Z".into(),
            source: "upstream".into(),
            state: state.into(),
            in_force,
            ..PastDeployment::default()
        };
        let failed = PastDeployment {
            reason: Some("module `a`: it ended with code 3".into()),
            rolled_back_to: Some(1),
            changes: vec!["module a: image a:1 -> a:2".into()],
            ..of(2, "rolledBack", false)
        };
        let text = history_text(&[failed, of(1, "verified", true)], Output::Plain);
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(
            lines,
            [
                "NUMBER  VERSION  AT                    BY        STATE       REASON",
                "2       12       2026-11-30T01:00:00Z  upstream  rolledBack  back to 1: module `a`: it ended with code 3",
                "1*      11       2026-11-30T01:00:00Z  upstream  verified",
                "2: module a: image a:1 -> a:2",
                "* in force",
            ]
        );
        assert_eq!(history_text(&[], Output::Plain), "no deployment yet");
    }
}
