//! Files of devices as people and spreadsheets write them.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use central_core::devices::csv::{Record, records, write};
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
        "IOTC_DEVICEID , IOTC_DEVICENAME\n a , Press A \nb\n\n , \n",
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
fn a_file_that_is_none_of_devices_is_refused_as_a_whole() {
    assert_eq!(read("").unwrap_err(), InvalidFile::Empty);
    assert_eq!(read("\n\n").unwrap_err(), InvalidFile::Empty);
    assert_eq!(read("a,b\n1,2\n").unwrap_err(), InvalidFile::NoId);
    assert!(matches!(read("IOTC_DEVICEID,iotc_deviceid\n").unwrap_err(), InvalidFile::Twice(_)));
    assert!(matches!(read("\"IOTC_DEVICEID\n").unwrap_err(), InvalidFile::Header(_)));
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(table in prop::collection::vec(prop::collection::vec("[a-c ,;\"\r\n\u{e9}]{0,6}", 1..5), 1..8)) {
        // The first line decides about the separator.
        let mut text = "head,line\r\n".to_owned();
        for row in &table {
            let fields: Vec<&str> = row.iter().map(String::as_str).collect();
            write(&mut text, &fields);
        }
        let found: Vec<Vec<String>> = records(&text).skip(1).map(|record| record.unwrap().fields).collect();
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
