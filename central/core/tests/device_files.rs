//! Files of devices as people and spreadsheets write them.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use central_core::devices::csv::{CsvField, Record, records, unguarded, write};
use central_core::devices::import::{InvalidFile, Line, WrongLine, read};
use proptest::prelude::*;

fn line(line: usize, id: &str, name: Option<&str>) -> Result<Line, WrongLine> {
    Ok(Line { line, id: id.to_owned(), name: name.map(str::to_owned), ..Line::default() })
}

#[test]
fn a_file_is_read_with_a_byte_order_mark_any_line_end_and_either_separator() {
    for text in [
        "IOTC_DEVICEID,IOTC_DEVICENAME\na,Press A\nb,\n",
        "\u{feff}IOTC_DeviceID,IOTC_DeviceName\r\na,Press A\r\nb,",
        "iotc_deviceid;IOTC_DEVICENAME\r\na;Press A\r\nb;\r\n",
        "IOTC_DEVICENAME,IOTC_DEVICEID\rPress A,a\r,b\r",
        "IOTC_DEVICEID , IOTC_DEVICENAME\na,Press A\nb\n\n , \n",
        "\"IOTC_DEVICEID\",\"IOTC_DEVICENAME\"\n\"a\",\"Press A\"\n\"b\",\"\"\n",
    ] {
        let file = read(text).unwrap();
        assert_eq!(file.lines, [line(2, "a", Some("Press A")), line(3, "b", None)], "{text:?}");
        assert!(file.ignored.is_empty());
    }
}

#[test]
fn each_wrong_line_is_named_with_its_number_and_the_others_are_read() {
    let text = "IOTC_DEVICEID,IOTC_DEVICENAME,IOTC_SASKEY_PRIMARY,IOTC_SASKEY_SECONDARY,IOTC_X509THUMBPRINT_PRIMARY,floor\n\
        a,\"Press\r\n\"\"A\"\"\",,,,1\n\
        ,no id\n\
        a,again\n\
        b,too,many,fields,for,this,file\n\
        c,\"x\"y\n\
        d,name,,second\n\
        e,name,key,key,print\n\
        f\n\
        g,\"open\nh,never read\n";
    let file = read(text).unwrap();
    assert_eq!(file.ignored, ["floor"]);
    let shown: Vec<(usize, String)> = file
        .lines
        .iter()
        .map(|of| match of {
            Ok(line) => (line.line, line.id.clone()),
            Err(wrong) => (wrong.line, format!("{}: {}", wrong.id.as_deref().unwrap_or("-"), wrong.why)),
        })
        .collect();
    let expected = [
        (2, "a"),
        (4, "-: IOTC_DEVICEID is empty"),
        (5, "a: device `a` is on line 2 already"),
        (6, "b: 7 fields where the first line names 6 columns"),
        (
            7,
            "-: a field in quotes is followed by something else than a separator; write \"\" for a quote in it",
        ),
        (8, "d: IOTC_SASKEY_SECONDARY without IOTC_SASKEY_PRIMARY"),
        (9, "e: keys and thumbprints; a device has one or the other"),
        (10, "f"),
        (11, "-: a field begins with a quote (\") that is not closed"),
    ];
    let expected: Vec<(usize, String)> =
        expected.into_iter().map(|(line, text)| (line, text.to_owned())).collect();
    assert_eq!(shown, expected);
    assert_eq!(file.lines[0].as_ref().unwrap().name.as_deref(), Some("Press\r\n\"A\""));
}

#[test]
fn no_blank_of_a_value_is_left_out() {
    let file = read("IOTC_DEVICEID,IOTC_DEVICENAME\n a,\tPress A \nb, \nc,\u{a0}=1\n").unwrap();
    let expected =
        [line(2, " a", Some("\tPress A ")), line(3, "b", Some(" ")), line(4, "c", Some("\u{a0}=1"))];
    assert_eq!(file.lines, expected);
}

/// `central/web/tests/csv.test.ts` has the same cases for the console.
#[test]
fn a_text_that_a_spreadsheet_would_calculate_is_guarded_and_read_as_it_was() {
    #[derive(serde::Deserialize)]
    struct Case {
        text: String,
        written: String,
    }
    let cases: Vec<Case> = serde_json::from_str(include_str!("csv_fields.json")).unwrap();
    assert!(cases.len() > 30);
    for Case { text, written } in cases {
        let mut line = String::new();
        write(&mut line, &[CsvField::Text("a"), CsvField::Text(&text)]);
        assert_eq!(line, format!("a,{written}\r\n"), "{text:?}");
        let record = records(&line).next().unwrap().unwrap();
        assert_eq!(unguarded(&record.fields[1]), text);
    }
}

#[test]
fn a_key_is_written_as_it_is_unless_it_is_none() {
    let mut line = String::new();
    write(&mut line, &[CsvField::Key("+/abc=="), CsvField::Key(""), CsvField::Key("+A1(B1)")]);
    assert_eq!(line, "+/abc==,,'+A1(B1)\r\n");
}

#[test]
fn a_file_that_is_none_of_devices_is_refused_as_a_whole() {
    assert_eq!(read("").unwrap_err(), InvalidFile::Empty);
    assert_eq!(read("\n\n").unwrap_err(), InvalidFile::Empty);
    assert_eq!(read("a,b\n1,2\n").unwrap_err(), InvalidFile::NoId);
    assert!(matches!(read("IOTC_DEVICEID,iotc_deviceid\n").unwrap_err(), InvalidFile::Twice(_)));
    assert!(matches!(read("\"IOTC_DEVICEID\n").unwrap_err(), InvalidFile::Header(_)));
}

/// Texts of what a writer and a reader treat apart: quotes, apostrophes, separators, ends of lines, blanks, begins of formulas.
fn awkward() -> impl Strategy<Value = String> {
    let parts = prop::sample::select(vec![
        "'", "\"", ",", ";", "=", "+", "-", "@", "\t", "\r", "\n", "\r\n", " ", "\u{85}", "\u{a0}",
        "\u{3000}", "\u{200b}", "\u{feff}", "\u{ff1d}", "\0", "a", "1", "\u{e9}",
    ]);
    prop_oneof![prop::collection::vec(parts, 0..8).prop_map(|parts| parts.concat()), any::<String>()]
}

proptest! {
    #[test]
    fn ids_and_names_are_read_byte_for_byte_as_they_were_exported(names in prop::collection::vec((awkward(), awkward()), 1..5)) {
        let mut text = "\u{feff}".to_owned();
        write(&mut text, &[CsvField::Text("IOTC_DEVICEID"), CsvField::Text("IOTC_DEVICENAME")]);
        // Ids differ, and none is empty.
        let names: Vec<(String, String)> =
            names.into_iter().enumerate().map(|(number, (id, name))| (format!("{id}{number}"), name)).collect();
        for (id, name) in &names {
            write(&mut text, &[CsvField::Text(id), CsvField::Text(name)]);
        }
        let found: Vec<(String, String)> = read(&text).unwrap().lines.into_iter().map(|line| {
            let line = line.unwrap();
            (line.id, line.name.unwrap_or_default())
        }).collect();
        prop_assert_eq!(found, names);
    }

    #[test]
    fn no_field_begins_as_a_formula_does(text in awkward()) {
        let mut line = String::new();
        write(&mut line, &[CsvField::Text("x"), CsvField::Text(&text)]);
        let record = records(&line).next().unwrap().unwrap();
        let first = record.fields[1].trim_start().chars().next().unwrap_or('a');
        prop_assert!(!"=+-@\t\r\n\u{ff1d}".contains(first), "{line:?}");
        prop_assert!(!record.fields[1].starts_with(char::is_control), "{line:?}");
    }

    #[test]
    fn what_is_written_is_read_again(table in prop::collection::vec(prop::collection::vec("[a-c ,;\"\r\n\u{e9}]{0,6}", 1..5), 1..8)) {
        // The first line decides about the separator.
        let mut text = "head,line\r\n".to_owned();
        for row in &table {
            let fields: Vec<_> = row.iter().map(|field| CsvField::Text(field)).collect();
            write(&mut text, &fields);
        }
        let records = records(&text).skip(1).map(|record| record.unwrap().fields);
        let found: Vec<Vec<String>> =
            records.map(|fields| fields.iter().map(|field| unguarded(field).to_owned()).collect()).collect();
        let kept: Vec<Vec<String>> =
            table.into_iter().filter(|row| row.iter().any(|field| !field.is_empty())).collect();
        prop_assert_eq!(found, kept);
    }

    #[test]
    fn any_text_is_read_to_its_end_with_rising_line_numbers(text in "[ab,;\"\r\n]{0,60}") {
        let mut last = 0;
        for record in records(&text) {
            let line = match record { Ok(Record { line, .. }) | Err((line, _)) => line };
            prop_assert!(line > last);
            last = line;
        }
    }
}
