//! IoT Central's files of devices: previewed, imported with what became of each line, and exported.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use central::store::StoreError;
use central::token::Role;
use common::{Central, start};
use reqwest::Method;
use serde_json::{Value, json};

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";
const THUMBPRINT: &str = "0123456789ABCDEF0123456789ABCDEF01234567";

async fn begin(central: &Central, body: Value) -> i64 {
    let (status, answer) = central.send(Method::POST, "/api/ext/devices/import", Some(body)).await;
    assert_eq!(status, 202, "{answer}");
    answer["operation"].as_i64().unwrap()
}

async fn ended(central: &Central, operation: i64) -> Value {
    let path = format!("/api/ext/operations/{operation}");
    central.until(&path, |shown| (shown["state"] == "done").then(|| shown.clone())).await
}

/// Three of its lines are wrong.
fn thousand() -> String {
    let mut csv = "\u{feff}IOTC_DEVICEID,IOTC_DEVICENAME\r\n".to_owned();
    for number in 1..=1000 {
        csv += &match number {
            17 => "press 17,Press 17\r\n".to_owned(),
            500 => ",no id\r\n".to_owned(),
            1000 => "press-1,again\r\n".to_owned(),
            _ => format!("press-{number},Press {number}\r\n"),
        };
    }
    csv
}

#[tokio::test]
async fn a_thousand_lines_with_three_bad_ones_add_997_devices_and_name_the_three() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let body = json!({"csv": thousand(), "template": "dtmi:site:press;1", "fileName": "line 4.csv"});
    let preview = central.ok(Method::POST, "/api/ext/devices/import/preview", Some(body.clone())).await;
    assert_eq!(
        (&preview["lines"], &preview["valid"], &preview["failed"]),
        (&json!(1000), &json!(997), &json!(3))
    );
    assert_eq!(central.get("/api/ext/grid/counts").await["total"], 0, "a preview adds nothing");
    let operation = begin(&central, body).await;
    let shown = ended(&central, operation).await;
    assert_eq!((&shown["total"], &shown["done"], &shown["failed"]), (&json!(1000), &json!(1000), &json!(3)));
    assert_eq!((&shown["title"], &shown["organization"]), (&json!("line 4.csv"), &json!("root")));
    assert_eq!(shown["faults"], preview["faults"], "what the preview said is what happened");
    let lines: Vec<(u64, &str)> = shown["faults"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| (fault["line"].as_u64().unwrap(), fault["why"].as_str().unwrap()))
        .collect();
    assert_eq!(lines.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [18, 501, 1001]);
    assert!(lines[0].1.starts_with("IOTC_DEVICEID: "), "{lines:?}");
    assert!(lines[2].1.contains("line 2"), "{lines:?}");
    let counts = central.get("/api/ext/grid/counts").await;
    assert_eq!((&counts["total"], &counts["byTemplate"]["dtmi:site:press;1"]), (&json!(997), &json!(997)));
    assert_eq!(central.get("/api/devices/press-999").await["displayName"], "Press 999");
    // Once more: each line says that its device is there.
    let again = begin(&central, json!({"csv": thousand()})).await;
    assert_eq!(ended(&central, again).await["failed"], 1000);
    assert_eq!(central.get("/api/ext/operations").await["value"][0]["id"], again);
    central.end().await;
}

#[tokio::test]
async fn keys_and_thumbprints_of_a_file_are_the_devices_and_an_export_has_them_again() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let header = "IOTC_DEVICEID,IOTC_DEVICENAME,IOTC_SASKEY_PRIMARY,IOTC_SASKEY_SECONDARY,IOTC_X509THUMBPRINT_PRIMARY,\
        IOTC_X509THUMBPRINT_SECONDARY\r\n";
    let csv = format!(
        "{header}a,\"Press, A\",{KEY},,,\r\nb,,,,{THUMBPRINT},\r\nc,,not a key,,,\r\nd,,,,not a thumbprint,\r\ne,,,,,\r\n"
    );
    let shown = {
        let operation = begin(&central, json!({"csv": csv})).await;
        ended(&central, operation).await
    };
    assert_eq!(shown["failed"], 2, "{shown}");
    assert!(shown["faults"][0]["why"].as_str().unwrap().starts_with("IOTC_SASKEY_PRIMARY: "), "{shown}");
    assert!(
        shown["faults"][1]["why"].as_str().unwrap().starts_with("IOTC_X509THUMBPRINT_PRIMARY: "),
        "{shown}"
    );
    let keys = central.get("/api/devices/a/credentials").await;
    assert_eq!(keys["symmetricKey"]["primaryKey"], KEY);
    assert!(keys["symmetricKey"]["secondaryKey"].as_str().unwrap().len() > 40, "made: {keys}");
    let exported = central.ok(Method::POST, "/api/ext/devices/export", Some(json!({"keys": true}))).await;
    assert_eq!((&exported["devices"], &exported["next"]), (&json!(3), &Value::Null));
    let text = exported["csv"].as_str().unwrap();
    assert!(text.starts_with(&format!("\u{feff}{header}a,\"Press, A\",{KEY},")), "{text}");
    assert!(text.to_lowercase().contains(&format!("b,b,,,{},\r\n", THUMBPRINT.to_lowercase())), "{text}");
    for id in ["a", "b", "e"] {
        assert_eq!(central.send(Method::DELETE, &format!("/api/devices/{id}"), None).await.0, 204);
    }
    let again = begin(&central, json!({"csv": text})).await;
    assert_eq!(ended(&central, again).await["failed"], 0);
    let same = central.ok(Method::POST, "/api/ext/devices/export", Some(json!({"keys": true}))).await;
    assert_eq!(same["csv"], exported["csv"]);
    central.end().await;
}

#[tokio::test]
async fn ids_and_names_that_begin_like_formulas_are_exported_as_texts_and_imported_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let names = [
        ("=SUM(A1:A9)", "=cmd|' /C calc'!A0"),
        ("-1", "+1 \"x\""),
        ("@x", "  @SUM(1),; "),
        ("'=x", "'=x"),
        ("'q'", "'quoted'"),
        ("plain", "\u{3000}"),
    ];
    for (id, name) in names {
        let id = percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC);
        central.put(&format!("/api/devices/{id}"), json!({"displayName": name})).await;
    }
    let export =
        async || central.ok(Method::POST, "/api/ext/devices/export", Some(json!({"keys": true}))).await;
    let exported = export().await;
    let text = exported["csv"].as_str().unwrap();
    for line in [
        "\r\n'=SUM(A1:A9),'=cmd|' /C calc'!A0,",
        "\r\n'-1,\"'+1 \"\"x\"\"\",",
        "\r\n''=x,''=x,",
        "\r\n'q','quoted',",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    for (id, _) in names {
        let id = percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC);
        assert_eq!(central.send(Method::DELETE, &format!("/api/devices/{id}"), None).await.0, 204);
    }
    let operation = begin(&central, json!({"csv": text})).await;
    assert_eq!(ended(&central, operation).await["failed"], 0);
    for (id, name) in names {
        let id = percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC);
        assert_eq!(central.get(&format!("/api/devices/{id}")).await["displayName"], name);
    }
    assert_eq!(export().await, exported);
    central.end().await;
}

#[tokio::test]
async fn blanks_of_an_imported_value_are_kept_or_refused_with_line_and_field() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let csv =
        format!("IOTC_DEVICEID,IOTC_DEVICENAME,IOTC_SASKEY_PRIMARY\na, =1+1 ,\nb,\tx,\n c,c,\nd,d,{KEY} \n");
    let operation = begin(&central, json!({"csv": csv})).await;
    let shown = ended(&central, operation).await;
    let faults: Vec<(u64, &str)> = shown["faults"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| (fault["line"].as_u64().unwrap(), fault["why"].as_str().unwrap()))
        .collect();
    let fields = [(3, "IOTC_DEVICENAME: "), (4, "IOTC_DEVICEID: "), (5, "IOTC_SASKEY_PRIMARY: ")];
    assert_eq!(faults.len(), fields.len(), "{shown}");
    for ((line, why), (expected, field)) in faults.iter().zip(fields) {
        assert!(*line == expected && why.starts_with(field), "{shown}");
    }
    assert_eq!(central.get("/api/devices/a").await["displayName"], " =1+1 ");
    central.end().await;
}

#[tokio::test]
async fn only_administrators_export_keys_and_neither_keys_nor_files_are_in_the_audit_log() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let csv = format!("IOTC_DEVICEID,IOTC_SASKEY_PRIMARY\na,{KEY}\n");
    let operation = begin(&central, json!({"csv": csv, "fileName": "a.csv"})).await;
    ended(&central, operation).await;
    let operator = central.new_token(Role::Operator).await;
    let ask = async |body: Value| {
        let request =
            central.http.post(central.url("/api/ext/devices/export")).header("Authorization", &operator);
        let answer = request.json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, text) = ask(json!({"keys": true})).await;
    assert_eq!(status, 403, "{text}");
    let (status, text) = ask(json!({})).await;
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("IOTC_DEVICENAME\\r\\na,a") && !text.contains(KEY), "{text}");
    central.ok(Method::POST, "/api/ext/devices/export", Some(json!({"keys": true}))).await;
    let found = |rows: &Value, path: &str, after: &Value| {
        let mut rows = rows["value"].as_array().unwrap().iter();
        rows.any(|row| row["path"] == path && (after.is_null() || row["after"] == *after))
    };
    // A row gets its end behind the answer.
    let with_keys = json!({"keys": true});
    let rows = central
        .until("/api/ext/audit?limit=100", |rows| {
            found(rows, "/api/ext/devices/export", &with_keys).then(|| rows.clone())
        })
        .await;
    assert!(!rows.to_string().contains(KEY), "{rows}");
    assert!(found(&rows, "/api/ext/devices/import", &Value::Null), "{rows}");
    assert!(found(&rows, &format!("/api/ext/operations/{operation}"), &Value::Null), "{rows}");
    central.end().await;
}

#[tokio::test]
async fn a_file_that_cannot_be_read_as_a_whole_is_refused_and_a_device_may_be_called_import() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let too_long = format!("IOTC_DEVICEID\n{}", (0..10_001).map(|n| format!("d{n}\n")).collect::<String>());
    for (csv, phrase) in [("", "empty"), ("a,b\n", "IOTC_DEVICEID"), (too_long.as_str(), "10000")] {
        for path in ["/api/ext/devices/import", "/api/ext/devices/import/preview"] {
            let (status, answer) = central.send(Method::POST, path, Some(json!({"csv": csv}))).await;
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(
                status == 422 && message.starts_with("csv: ") && message.contains(phrase),
                "{status} {message}"
            );
        }
    }
    assert_eq!(central.send(Method::GET, "/api/ext/operations/1", None).await.0, 404);
    for id in ["import", "export"] {
        central.put(&format!("/api/devices/{id}"), json!({})).await;
        central.get(&format!("/api/ext/devices/{id}/why")).await;
        central.get(&format!("/api/ext/devices/{id}/names")).await;
    }
    central.end().await;
}

#[tokio::test]
async fn an_import_that_central_did_not_end_is_shown_as_interrupted_with_how_far_it_came() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let store = central.started.store().clone();
    let insert = store.submit(|c| {
        c.execute(
            "INSERT INTO operations (kind, title, who, started_ms, total, done, failed) VALUES ('importDevices', 'a.csv', 'u', 1, 300, 200, 1)",
            [],
        )?;
        Ok::<_, StoreError>(c.last_insert_rowid())
    });
    let id = insert.await.unwrap();
    let shown = central.get(&format!("/api/ext/operations/{id}")).await;
    assert_eq!((&shown["state"], &shown["done"]), (&json!("interrupted"), &json!(200)));
    assert_eq!(shown["endedAt"], Value::Null);
    central.end().await;
}

#[tokio::test]
async fn only_the_newest_operations_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let mut last = 0;
    for number in 0..23 {
        last = begin(&central, json!({"csv": format!("IOTC_DEVICEID\nd{number}\nx y\n")})).await;
        ended(&central, last).await;
    }
    let list = central.get("/api/ext/operations").await;
    assert_eq!((list["value"].as_array().unwrap().len(), &list["value"][0]["id"]), (20, &json!(last)));
    let store = central.started.store().clone();
    let faults = store.read(|c| {
        Ok::<_, StoreError>(c.query_row(
            "SELECT count(DISTINCT operation) FROM operation_faults",
            [],
            |row| row.get::<_, i64>(0),
        )?)
    });
    assert_eq!(faults.await.unwrap(), 20);
    central.end().await;
}
