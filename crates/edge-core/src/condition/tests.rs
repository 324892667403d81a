//! Tables of conditions and what they come to, and what holds for every one of them.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::ast::{Arithmetic, Compare, DollarReference, Expr, Reference};
use super::*;

/// A message with properties, system properties, a body and a twin.
struct Message {
    properties: BTreeMap<&'static str, &'static str>,
    system: BTreeMap<&'static str, &'static str>,
    body: Json,
    desired: Map<String, Json>,
    change: Option<Json>,
}

impl Subject for Message {
    fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    fn system(&self, name: &str) -> Option<&str> {
        self.system.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    fn body(&self) -> Result<&Json, &body::BodyError> {
        Ok(&self.body)
    }

    fn twin(&self, section: TwinSection) -> Option<&Map<String, Json>> {
        (section == TwinSection::Desired).then_some(&self.desired)
    }

    fn twin_change(&self) -> Option<(TwinSection, &Json)> {
        self.change.as_ref().map(|patch| (TwinSection::Reported, patch))
    }
}

fn message() -> Message {
    Message {
        properties: BTreeMap::from([
            ("key1", "value1"),
            ("key2", "3"),
            ("key3", "VALUE3"),
            ("empty", ""),
            ("mqtt-topic", "a/b"),
            ("$sys4", "value4"),
            ("with space", "x"),
            ("$body.conflict", "100"),
            ("true", "a property named true"),
        ]),
        system: BTreeMap::from([
            ("sys1", "sysvalue1"),
            ("sys2", "4"),
            ("sys4", "sysvalue4"),
            ("absolute-expiry-time", "2026-01-01"),
        ]),
        body: json!({
            "temperature": 50, "cold": -50.4, "precise": 50.4, "nothing": null, "on": true, "off": false,
            "time": "2017-03-09T00:00:00.000Z", "list": [20, 30, 40], "conflict": 50, "a b": {"c.d": "odd"},
            "place": {"street": "One Factory Way", "city": "Lund", "state": "SK"},
            "history": [{"month": "Feb", "t": 40}, {"month": "Jan", "t": 30}], "Case": "upper", "n": "12"
        }),
        desired: json!({"limit": 40, "mode": {"name": "eco"}}).as_object().unwrap().clone(),
        change: None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Is {
    True,
    False,
    Null,
    Undefined,
}

fn ask(text: &str, subject: &Message) -> Is {
    let condition = Condition::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let found = match condition.value(subject) {
        Value::Bool(true) => Is::True,
        Value::Bool(false) => Is::False,
        Value::Null => Is::Null,
        Value::Undefined => Is::Undefined,
        other => panic!("{text} is {other:?}"),
    };
    assert_eq!(condition.holds(subject), found == Is::True, "{text}");
    found
}

fn all(expected: Is, texts: &[&str]) {
    let message = message();
    for text in texts {
        assert_eq!(ask(text, &message), expected, "{text}");
    }
}

#[test]
fn conditions_of_literals_come_out_without_a_message() {
    all(
        Is::True,
        &[
            "true",
            "3 = 3",
            "3 != 4",
            "3 <> 4",
            "'3' = \"3\"",
            "'a' <> 'b'",
            "true = true",
            "true <> false",
            "null = null",
            "null <= null",
            "4 < 7",
            "7 <= 7",
            "8 > 7",
            "7 >= 7",
            "'a' < 'b'",
            "'b' > 'a'",
            "'a' <= 'a'",
            "'B' < 'a'",
            "3 + 4 = 7",
            "3+4=7",
            "3 - 4 = -1",
            "3-4=-1",
            "3 * 4 = 12",
            "3 / 4 = 0.75",
            "4 % 3 = 1",
            "-4 % 3 = -1",
            "2 + 3 * 4 = 14",
            "(2 + 3) * 4 = 20",
            "2 - 3 - 4 = -5",
            "8 / 4 / 2 = 1",
            "-(3 + 4) = -7",
            "- 1 < 0",
            "--1 = 1",
            "0x1F = 31",
            "0Xff = 255",
            "1e3 = 1000",
            "1.5E+2 = 150",
            ".5 = 0.5",
            "1e-6 < 1",
            "3/0 > 1e300",
            "-3/0 < -1e300",
            "10e1000 = 1/0",
            "not false",
            "NOT (true AND false)",
            "true AND NOT false",
            "true or false",
            "NOT NOT true",
            "1 = 1 AND 2 = 2 AND 3 = 3",
            "false OR false OR true",
            "true OR false AND false",
            "1 < 2 = true",
            "null or true",
            "not null",
            "(null and false) = false",
            "(null and null) = null",
            "(null or null) = null",
            "/* why */ 1 = 1 /* and */ AND /**/ true",
            "\n1\t=\r\n1",
            "'a\\u0041' = 'aA'",
            "'\\\"' = '\"'",
            "\"'\" = '\\''",
            "'\\\\' = '\\u005c'",
            "'\\ud83d\\ude00' = '😀'",
        ],
    );
    all(
        Is::False,
        &[
            "false",
            "3 = 4",
            "'3' = '4'",
            "'a' = 'A'",
            "true = false",
            "null != null",
            "null < null",
            "7 < 7",
            "not true",
            "true AND false",
            "false OR false",
            "null and false",
            "null or false",
            "3 + 4 > 7",
            "'a' > 'a'",
        ],
    );
    all(
        Is::Null,
        &["null", "null and true", "true AND null", "null AND null", "null or null", "null AND undefined"],
    );
    all(
        Is::Undefined,
        &[
            "undefined",
            "undefined = undefined",
            "undefined < 1",
            "undefined != 'a'",
            "3 % 0 = 0",
            "0 / 0 = 0",
            "not undefined",
            "-undefined = 1",
            "undefined AND true",
            "true AND undefined",
            "undefined OR false",
            "undefined OR null",
            "undefined AND undefined",
            "undefined ?? undefined",
            "undefined + 1 = 1",
            "undefined || 'a' = 'a'",
        ],
    );
}

#[test]
fn undefined_matches_nothing_but_what_is_decided_without_it() {
    all(
        Is::True,
        &[
            "undefined OR true",
            "true OR undefined",
            "NOT IS_DEFINED(none)",
            "true or none = 'x'",
            "none = 'x' or true",
            "not (false and none = 'x')",
            "is_defined(none) = false",
            "is_defined(none = 'x') = false",
        ],
    );
    all(
        Is::False,
        &["undefined AND false", "false and none = 'x'", "none = 'x' and false", "is_defined(undefined)"],
    );
    all(
        Is::Undefined,
        &[
            "none = 'x'",
            "none != 'x'",
            "none <> 'x'",
            "not (none = 'x')",
            "'a' < none",
            "none = none2",
            "none > 3",
            "none = 'x' or none2 = 'x'",
            "true and none = 'x'",
            "none = 'x' or false",
            "as_number(none) = 3",
            "$none = 'x'",
            "{$none} = 'x'",
            "$twin.desired.none = 1",
            "$twin.reported.limit = 1",
            "$twin.tags.x = 'a'",
        ],
    );
}

#[test]
fn properties_are_texts_that_represent_numbers_where_a_number_is_requested() {
    all(
        Is::True,
        &[
            "key1 = 'value1'",
            "KEY1 = 'value1'",
            "key1 <> 'x'",
            "key2 = '3'",
            "key2 = 3",
            "key2 > 2",
            "3 = key2",
            "2 < key2",
            "key2 + 1 = 4",
            "key2 * key2 = 9",
            "-key2 = -3",
            "abs(-key2) = 3",
            "power(key2, 2) = 9",
            "as_number(key2) = 3",
            "key2 <= 3.0",
            "(none ?? 3) = 3",
            "(key2 ?? 4) = 3",
            "(key2 ?? 4) > 2",
            "$sys2 = 4",
            "$sys2 = '4'",
            "is_string(key2)",
            "mqtt-topic = 'a/b'",
            "['with space'] = 'x'",
            "[\"key1\"] = 'value1'",
            "{with space} = 'x'",
            "{ key1 } = 'value1'",
            "empty = ''",
            "['true'] = 'a property named true'",
            "key1='value1'",
            "key1!='x'",
            "key2<4",
            "key2-1 = 2 OR true",
            "key2*2=6",
            "key1||'x'='value1x'",
            "key2 -1 = 2",
        ],
    );
    all(
        Is::False,
        &[
            "key1 = 'value2'",
            "key2 = '3.0'",
            "key2 = 4",
            "is_number(key2)",
            "is_bool(key1)",
            "is_null(key1)",
            "key1 > key3 = false",
        ],
    );
    all(
        Is::Undefined,
        &["key1 = 3", "key1 > 3", "empty = 0", "key1 + 1 = 2", "abs(key1) = 1", "as_number(key1) = 3"],
    );
}

#[test]
fn a_name_with_a_dollar_is_the_property_of_that_name_or_the_place() {
    all(
        Is::True,
        &[
            "$sys1 = 'sysvalue1'",
            "$SYS1 = 'sysvalue1'",
            "{$sys1} = 'sysvalue1'",
            "{ $sys1 } = 'sysvalue1'",
            "$absolute-expiry-time = '2026-01-01'",
            "$sys4 = 'value4'",
            "{$sys4} = 'sysvalue4'",
            "$body.conflict = 100",
            "$body.conflict = '100'",
            "{$body.conflict} = 50",
            "$BODY.temperature = 50",
            "$Body.temperature = 50",
            "['$sys4'] = 'value4'",
        ],
    );
    all(Is::Undefined, &["$body", "$body = 1", "$nothing = '1'"]);
}

#[test]
fn bodies_are_read_by_path() {
    all(
        Is::True,
        &[
            "50 >= $body.temperature",
            "$body.temperature != 60",
            "$body.temperature = 40 + 10",
            "$body.temperature >= $body.list[0] + $body.list[1]",
            "$body.list[1] / $body.list[0] = 1.5",
            "$body.history[0].t - 10 = $body.history[1].t",
            "$body.history[0].month = 'Feb'",
            "$body.place.city = 'Lund'",
            "$body['place'].city = 'Lund'",
            "$body.place['city'] = \"Lund\"",
            "$body['a b']['c.d'] = 'odd'",
            "{$body['a b'][\"c.d\"]} = 'odd'",
            "$body.on",
            "$body.on = true",
            "NOT $body.off",
            "$body.off <> true",
            "$body.on AND NOT $body.off",
            "$body.on OR $body.off",
            "$body.nothing = null",
            "is_null($body.nothing)",
            "NOT $body.nothing",
            "is_defined($body.nothing)",
            "is_defined($body.place.street)",
            "is_number($body.temperature)",
            "is_string($body.n)",
            "is_bool($body.off)",
            "as_number($body.n) = 12",
            "$body.n = '12'",
            "$body.time < '2018'",
            "abs($body.cold) = 50.4",
            "ceiling($body.precise) = 51",
            "length($body.place.state) = 2",
            "concat($body.place.street, ', ', $body.place.city) = 'One Factory Way, Lund'",
            "substring($body.place.street, length($body.place.street) - 3) = 'Way'",
            "upper($body.place.city) = 'LUND'",
            "($body.none ?? $body.temperature) = 50",
            "($body.nothing ?? 1) = null",
            "$body.Case = 'upper'",
            "$body.temperature = key4 OR key2 < $body.temperature",
        ],
    );
    all(
        Is::False,
        &[
            "$body.temperature < 50",
            "$body.off",
            "is_defined($body.none)",
            "is_null($body.none)",
            "is_defined($body.place)",
            "is_defined($body.list)",
        ],
    );
    all(
        Is::Undefined,
        &[
            "$body.place = 'x'",
            "$body.list = 20",
            "not $body.temperature",
            "$body.temperature and true",
            "$body.place.city + 1 = 2",
            "abs($body.place.city) = 1",
            // Of different kinds: neither is less.
            "$body.temperature > '5'",
            "$body.n < 13",
            "$body.none > 1",
            "$body.nothing < 1",
            "$body.place <> null",
            "lower($body.temperature) = 'x'",
            "$body.temperature || 'x' = '50x'",
            "$body.place",
        ],
    );
}

#[test]
fn twins_are_read_by_path() {
    all(
        Is::True,
        &[
            "$twin.properties.desired.limit = 40",
            "$twin.desired.limit < $body.temperature",
            "{$twin.desired.limit} = 40",
            "$TWIN.desired.mode.name = 'eco'",
            "$twin.desired['mode']['name'] = 'eco'",
        ],
    );
    all(Is::Undefined, &["$twin.desired = 1", "$twin.desired.mode = 'x'", "$twin.reported.a = 1"]);
}

#[test]
fn twin_changes_include_what_they_set_and_not_what_they_delete() {
    let patch = json!({"weather": {"t": 50, "place": {"city": "Lund"}}, "gone": null});
    let change = Message { change: Some(patch), ..message() };
    for (text, expected) in [
        ("twin_change_includes(properties.reported.weather)", Is::True),
        ("TWIN_CHANGE_INCLUDES(properties.reported.weather.t)", Is::True),
        ("twin_change_includes( reported.weather.place.city ) AND true", Is::True),
        ("NOT twin_change_includes(properties.reported.weather.other)", Is::True),
        ("twin_change_includes(properties.desired.weather)", Is::False),
        ("twin_change_includes(properties.reported.gone)", Is::False),
    ] {
        assert_eq!(ask(text, &change), expected, "{text}");
        assert_eq!(ask(text, &message()), Is::Undefined, "{text}");
    }
}

#[test]
fn every_function_does_what_iot_edge_does() {
    all(
        Is::True,
        &[
            "as_number('3') = 3",
            "AS_NUMBER(' 3 ') = 3",
            "as_number('10e10') = 10e10",
            "as_number('-1.5E-1') = -0.15",
            "as_number('10e1000') = 1/0",
            "as_number(as_number(4)) * 3 = 12",
            "is_bool(true)",
            "IS_BOOL(false)",
            "is_defined(key1)",
            "is_defined(null)",
            "is_defined(10e1000)",
            "is_null(null)",
            "is_number(12.34)",
            "is_string('a')",
            "is_string('a' || 'b')",
            "concat('a', 'b', 'c', 'd') = 'abcd'",
            "'a' || 'b' || 'c' = 'abc'",
            "'a' || key1 || 'd' = 'avalue1d'",
            "length('HELLO') = 5",
            "LENGTH('') = 0",
            "length('åäö😀') = 4",
            "length(key3) = 6",
            "lower('HELLO') = 'hello'",
            "upper('hello') = 'HELLO'",
            "lower('ÅÄÖ') = 'åäö'",
            "substring('abc', 1) = 'bc'",
            "substring('abc', 3) = ''",
            "substring('abc', 0) = 'abc'",
            "substring('abc', 1, 1) = 'b'",
            "substring('abc', 1, 0) = ''",
            "substring('hello', 0, 5) = 'hello'",
            "substring('hello', 4, 1) = 'o'",
            "substring('åäö', 1, 1) = 'ä'",
            "substring('abcd', 1.9, 1.9) = 'b'",
            "index_of('abcdef', 'cd') = 2",
            "index_of('abc', 'xz') = -1",
            "index_of('abc', '') = 0",
            "index_of('åäö', 'ö') = 2",
            "starts_with('abc', 'ab')",
            "ends_with('abc', 'bc')",
            "contains('abc', 'b')",
            "contains('a', '')",
            "contains(key1, 'lue')",
            "abs(-12) = 12",
            "abs(3/0) = 3/0",
            "exp(0) = 1",
            "abs(exp(1) - 2.718281) < 1e-6",
            "exp(4000) = 1/0",
            "power(2, 3) = 8",
            "power(2, -1) = 0.5",
            "power(10, 4000) = 1/0",
            "square(3) = 9",
            "ceiling(2.1) = 3",
            "ceiling(-2.1) = -2",
            "floor(2.1) = 2",
            "floor(-2.1) = -3",
            "sign(0) = 0",
            "sign(2.1) = 1",
            "sign(-2) = -1",
            "sign(-3/0) = -1",
            "sqrt(4) = 2",
            "abs(sqrt(3) - 1.732050) < 1e-6",
            "sqrt(square(-3)) = 3",
        ],
    );
    all(
        Is::False,
        &[
            "is_bool(12.34)",
            "is_bool('true')",
            "is_null(12.34)",
            "is_null(none)",
            "is_null(3 / 0)",
            "is_number('3')",
            "is_number(true)",
            "is_number(3 / 0)",
            "is_number(none)",
            "is_string(12)",
            "is_string(none)",
            "is_defined(as_number('apple'))",
            "is_defined(3 % 0)",
            "is_defined(concat('a', none))",
            "is_defined(abs(3 % 0))",
            "starts_with('abc', 'b')",
            "contains('abc', 'B')",
            "ends_with('abc', 'b')",
        ],
    );
    all(
        Is::Undefined,
        &[
            "as_number('') = 0",
            "as_number('inf') > 0",
            "as_number('nan') = 0",
            "as_number('1,000') = 1000",
            "as_number('0x10') = 16",
            "sqrt(-4) = 2",
            "substring('abc', 4) = ''",
            "substring('abc', -1) = ''",
            "substring('abc', 1, 3) = 'bc'",
            "substring('abc', 1, -2) = ''",
            "substring('abc', 1 % 0) = ''",
            "substring(none, 1) = 'a'",
            "length(none) = 0",
            "lower(none) = ''",
            "index_of(none, '1') = 0",
            "starts_with(none, '1')",
            "starts_with('abc', none)",
            "contains(none, '1')",
            "power(-8, 1 / 3) = -2",
        ],
    );
}

#[test]
fn the_default_of_the_double_question_operator_is_taken_when_the_left_side_is_undefined() {
    all(
        Is::True,
        &[
            "(key1 ?? 'hello') = 'value1'",
            "(none ?? 'hello') = 'hello'",
            "(none ?? none2 ?? 'hello') = 'hello'",
            "(as_number(key1) ?? 12.34) = 12.34",
            "(3 % 0 ?? 12.34) = 12.34",
            "undefined ?? true",
            "none = 'x' ?? true",
        ],
    );
    all(Is::Undefined, &["(none ?? none2) = 'x'"]);
}

#[test]
fn a_wrong_condition_is_refused_with_its_place_and_the_reason() {
    let mut wrong = Vec::new();
    for (text, column, found) in [
        ("", 1, "the end"),
        ("   ", 4, "the end"),
        ("a =", 4, "the end"),
        ("a = 1 b", 7, "\"b\""),
        ("a == 1", 4, "\"=\""),
        ("a = 'x", 5, "a text without its closing quote"),
        ("a = 'x\\n'", 7, "the escape \\n"),
        ("a = '\\u12'", 6, "a \\u without four hexadecimal digits"),
        ("a = '\\ud83d'", 6, "half of a surrogate pair"),
        ("(a = 1", 1, "a ( without its )"),
        ("a = 1)", 6, "\")\""),
        ("abs(1", 4, "a ( without its )"),
        ("abs(1 = 1", 5, "true or false as argument 1 of abs"),
        ("a && b", 3, "the character \"&\""),
        ("!a", 1, "the character \"!\""),
        ("a | | b", 3, "the character \"|\""),
        ("a @ b", 3, "the character \"@\""),
        ("a = 5.", 5, "\"5.\""),
        ("a = 1.2.3", 5, "\"1.2.3\""),
        ("a = 0xFFFFFFFFFFFFFFFF", 5, "a hexadecimal integer of more than 63 bits"),
        ("$ a = 1", 1, "a $ without a name"),
        ("$body.list[x] = 1", 12, "[x]"),
        ("$body.list[-1] = 1", 12, "[-1]"),
        ("$body.list[1:2] = 1", 13, "a [ without its ]"),
        ("$body.list[] = 1", 12, "[]"),
        ("$body..a = 1", 6, "a path with a dot too many"),
        ("$body.list[0 = 1", 12, "a [ without its ]"),
        ("$twin.other = 1", 2, "$twin.other"),
        ("$twin = 1", 2, "$twin"),
        ("$sys[0] = 1", 5, "a [ in the name of a system property"),
        ("{} = 1", 1, "braces with nothing in them"),
        ("{$sys = 1", 1, "a { without its }"),
        ("[a] = 1", 1, "a [ that no name follows"),
        ("3", 1, "3 as a condition"),
        ("'a'", 1, "the text \"a\" as a condition"),
        ("temperature", 1, "property `temperature`, a text as a condition"),
        ("a AND temperature > 3", 1, "property `a`, a text beside AND"),
        ("true OR a", 9, "property `a`, a text beside OR"),
        ("NOT a = 'x'", 5, "property `a`, a text beside NOT"),
        ("a = true", 3, "property `a`, a text compared with true"),
        ("a != null", 3, "property `a`, a text compared with null"),
        ("3 = 'a'", 3, "3 compared with the text \"a\""),
        ("3 < true", 3, "3 compared with true"),
        ("TRUE = $body.x", 1, "\"TRUE\""),
        ("'a' + 'b' = 'ab'", 1, "the text \"a\" beside +"),
        ("1 || 'a' = 'b'", 1, "1 beside ||"),
        ("$body.a || true", 12, "true beside ||"),
        ("-true = 1", 2, "true behind -"),
        ("nosuch(1) = 1", 1, "function `nosuch`"),
        ("abs() = 1", 1, "no arguments in abs"),
        ("abs(1, 2) = 1", 1, "2 arguments in abs"),
        ("concat('a') = 'a'", 1, "1 argument in concat"),
        ("substring('a') = 'a'", 1, "1 argument in substring"),
        ("length(12.34) = 5", 8, "12.34 as argument 1 of length"),
        ("starts_with('a', 3)", 18, "3 as argument 2 of starts_with"),
        ("abs('x') = 1", 5, "the text \"x\" as argument 1 of abs"),
        ("as_number(true) = 1", 11, "true as argument 1 of as_number"),
        ("contains('a', )", 15, "\")\""),
        ("contains('a' 'b')", 14, "\"'b'\""),
        ("key1 ?? 'a' = 'b'", 6, "property `key1`, a text ?? true or false"),
        ("a LIKE 'b%'", 3, "\"LIKE\""),
        ("a IN ('b')", 3, "\"IN\""),
        ("AND a = 1", 1, "\"AND\""),
        ("a = 1 /* b", 7, "a comment without its end"),
        ("twin_change_includes()", 22, "\")\""),
        ("twin_change_includes(reported)", 22, "\"reported\""),
        ("twin_change_includes(properties.x.y)", 22, "\"properties.x.y\""),
        ("twin_change_includes(properties.reported.)", 41, "a path with a dot too many"),
        ("twin_change_includes(properties.reported.a, b)", 43, "\",\""),
    ] {
        let error = Condition::parse(text).expect_err(text);
        if (error.at.line, error.at.column, error.found.as_str()) != (1, column, found)
            || error.allowed.is_empty()
        {
            wrong.push(format!("{text}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let error = Condition::parse("a = 'ö' AND\n  b == 1").unwrap_err();
    assert_eq!(error.at, Position { offset: 18, line: 2, column: 6 });
}

#[test]
fn depth_and_length_are_bounded_and_a_long_list_is_not_deep() {
    for deep in [
        format!("{}true{}", "(".repeat(10_000 / 2), ")".repeat(5000)),
        format!("{}true", "NOT ".repeat(2000)),
        format!("{}1 = 1", "-".repeat(2000)),
        format!("{}1{} = 1", "abs(".repeat(500), ")".repeat(500)),
        format!("1 = {}1", "1 + ".repeat(500)),
    ] {
        let error = Condition::parse(&deep).unwrap_err();
        assert!(error.found.contains("levels"), "{error}");
    }
    let error = Condition::parse(&" ".repeat(TEXT_BYTES_MAX + 1)).unwrap_err();
    assert!(error.found.contains("bytes"), "{error}");
    let list: Vec<String> = (0..800).map(|n| format!("key1 = 'v{n}'")).collect();
    let list = format!("{} OR key1 = 'value1'", list.join(" OR "));
    assert_eq!(ask(&list, &message()), Is::True);
}

#[test]
fn what_depends_on_nothing_is_worked_out_once() {
    for (text, folded) in [
        ("1 + 2 = 3", "true"),
        ("key2 > 2 * 5", "['key2'] > 10"),
        ("lower('ABC') || key1 = 'x'", "concat('abc', ['key1']) = 'x'"),
        ("-(1) < $body.x", "-1 < $body.x"),
        ("1/0 = $body.x", "1e999 = $body.x"),
        ("key1 = 'a' AND 1 = 2", "['key1'] = 'a' AND false"),
    ] {
        assert_eq!(Condition::parse(text).unwrap().to_string(), folded, "{text}");
    }
}

#[test]
fn an_operator_reads_why_a_condition_does_not_hold() {
    for (text, reason) in [
        ("key2 > 30", "key2 is '3'"),
        ("$body.temperature > 60 AND key1 = 'x'", "$body.temperature is 50, key1 is 'value1'"),
        ("none > 3", "there is no property `none`"),
        ("$none = 'x'", "there is no system property `$none`"),
        ("$body.none = 1", "the body has no `$body.none`"),
        ("$body.place = 1", "`$body.place` is an object"),
        ("$twin.tags.x = 1", "`$twin.tags.x`: there is no twin"),
        (
            "$body.temperature = '50'",
            "the number 50 and the text '50' are of different kinds, $body.temperature is 50",
        ),
        ("key1 > 3", "the property 'value1' and the number 3 are of different kinds"),
        ("sqrt(0 - key2) = 1", "`sqrt(0 - ['key2'])` has no value for the number -3"),
        ("twin_change_includes(reported.a)", "it is no twin change"),
        ("1 = 2", "it is a constant"),
        ("undefined", "its value is undefined"),
    ] {
        assert_eq!(Condition::parse(text).unwrap().explain(&message()).reason, reason, "{text}");
    }
}

#[test]
fn a_body_is_json_when_its_properties_say_so() {
    let json = json!({"a": "ö"});
    let text = json.to_string();
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let utf16_with_bom: Vec<u8> =
        std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect();
    let utf32: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
    for (encoding, bytes) in [
        ("utf-8", text.as_bytes()),
        ("UTF-8", text.as_bytes()),
        ("utf-16", &utf16),
        ("utf-16", &utf16_with_bom),
        ("utf-32", &utf32),
    ] {
        assert_eq!(
            body::read(Some("Application/JSON"), Some(encoding), bytes),
            Ok(json.clone()),
            "{encoding}"
        );
    }
    for (content_type, encoding, bytes, why) in [
        (None, Some("utf-8"), text.as_bytes(), "no content type"),
        (Some("text/plain"), Some("utf-8"), text.as_bytes(), "content type is `text/plain`"),
        (Some("application/json; charset=utf-8"), Some("utf-8"), text.as_bytes(), "content type is"),
        (Some("application/json"), None, text.as_bytes(), "no content encoding"),
        (Some("application/json"), Some("latin1"), text.as_bytes(), "content encoding is `latin1`"),
        (Some("application/json"), Some("utf-8"), b"{", "not JSON"),
        (Some("application/json"), Some("utf-16"), b"abc", "not utf-16"),
        (Some("application/json"), Some("utf-32"), b"abcd", "not utf-32"),
    ] {
        let found = body::read(content_type, encoding, bytes).unwrap_err().to_string();
        assert!(found.contains(why), "{found}");
    }
}

/// Anything that a condition's text can say.
fn expr() -> impl Strategy<Value = Expr> {
    let literal = prop_oneof![
        Just(Value::Undefined),
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<u32>().prop_map(|n| Value::Number(n.into())),
        (0.0f64..1e300).prop_map(Value::Number),
        "\\PC{0,6}|[\\x00-\\x1f'\"\\\\]{0,4}".prop_map(|text| Value::Text(text.into())),
    ];
    let step = prop_oneof![
        "[a-z][a-z0-9_-]{0,4}".prop_map(PathStep::Member),
        "\\PC{0,4}".prop_map(PathStep::Member),
        (0usize..100).prop_map(PathStep::Index),
    ];
    let path = || proptest::collection::vec(step.clone(), 0..3).prop_map(Path::new);
    let section =
        || prop_oneof![Just(TwinSection::Desired), Just(TwinSection::Reported), Just(TwinSection::Tags)];
    let place = prop_oneof![
        "[a-z][a-zA-Z0-9-]{0,5}[a-z]"
            .prop_filter("it has a meaning", |name| name != "body" && name != "twin")
            .prop_map(DollarReference::System),
        path().prop_map(DollarReference::Body),
        (section(), path()).prop_map(|(section, path)| DollarReference::Twin(section, path)),
    ];
    let reference = prop_oneof![
        "\\PC{1,6}".prop_map(Reference::Property),
        place.clone().prop_map(Reference::dollar),
        place.prop_map(Reference::Braced),
    ];
    let leaf = prop_oneof![
        literal.prop_map(Expr::Literal),
        reference.prop_map(Expr::Reference),
        (section(), path().prop_filter("not empty", |path| !path.steps().is_empty() && path.is_plain()))
            .prop_map(|(section, path)| Expr::TwinChangeIncludes(section, path)),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        let two = || (inner.clone().prop_map(Box::new), inner.clone().prop_map(Box::new));
        let arithmetic = prop_oneof![
            Just(Arithmetic::Add),
            Just(Arithmetic::Subtract),
            Just(Arithmetic::Multiply),
            Just(Arithmetic::Divide),
            Just(Arithmetic::Modulo)
        ];
        let compare = prop_oneof![
            Just(Compare::Equal),
            Just(Compare::NotEqual),
            Just(Compare::Less),
            Just(Compare::LessOrEqual),
            Just(Compare::Greater),
            Just(Compare::GreaterOrEqual)
        ];
        prop_oneof![
            inner.clone().prop_map(|part| Expr::Negate(Box::new(part))),
            inner.clone().prop_map(|part| Expr::Not(Box::new(part))),
            (arithmetic, two()).prop_map(|(operator, (left, right))| Expr::Arithmetic(operator, left, right)),
            (compare, two()).prop_map(|(operator, (left, right))| Expr::Compare(operator, left, right)),
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Expr::And),
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Expr::Or),
            two().prop_map(|(left, right)| Expr::Coalesce(left, right)),
            (proptest::sample::select(Function::ALL), proptest::collection::vec(inner.clone(), 3)).prop_map(
                |(function, mut arguments)| {
                    while !function.takes(arguments.len()) {
                        arguments.pop();
                    }
                    Expr::Call(function, arguments)
                }
            ),
        ]
    })
}

/// Truth values as texts, with what they are.
fn truth() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("true"), Just("false"), Just("undefined")]
}

proptest! {
    #[test]
    fn the_text_of_an_expression_reads_as_the_same_expression(expr in expr()) {
        // A whole text is a condition; this one takes any expression.
        let whole = Expr::Call(Function::IsDefined, vec![expr]);
        let text = whole.to_string();
        match parse_expr(&text) {
            Ok(read) => prop_assert_eq!(read, whole, "{}", text),
            // What can never come out is refused, whoever wrote it, and nothing else.
            Err(error) => {
                let is_kind = [" beside ", " compared with ", " as argument ", " behind -", " ?? "];
                prop_assert!(is_kind.iter().any(|kind| error.found.contains(kind)), "{}: {}", text, error);
            }
        }
    }

    #[test]
    fn working_out_what_is_fixed_changes_no_answer(expr in expr()) {
        let message = message();
        let folded = eval::fold(expr.clone());
        prop_assert_eq!(eval::evaluate(&expr, &message).into_owned(), eval::evaluate(&folded, &message).into_owned());
        // Whatever it is, it can be told.
        let _ = explain::explain(&expr, &message);
    }

    #[test]
    fn logic_is_kleenes(a in truth(), b in truth(), c in truth()) {
        let is = |text: String| ask(&text, &message());
        let rank = |value: &str| match value { "false" => 0, "undefined" => 1, _ => 2 };
        let of = |rank: i32| match rank { 0 => Is::False, 1 => Is::Undefined, _ => Is::True };
        prop_assert_eq!(is(format!("{a} AND {b}")), of(rank(a).min(rank(b))));
        prop_assert_eq!(is(format!("{a} OR {b}")), of(rank(a).max(rank(b))));
        prop_assert_eq!(is(format!("NOT {a}")), of(2 - rank(a)));
        prop_assert_eq!(is(format!("NOT ({a} AND {b})")), is(format!("NOT {a} OR NOT {b}")));
        prop_assert_eq!(is(format!("({a} AND {b}) AND {c}")), is(format!("{a} AND ({b} AND {c})")));
        prop_assert_eq!(is(format!("{a} AND ({b} OR {c})")), is(format!("{a} AND {b} OR {a} AND {c}")));
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,40}|(?i)((select|and|or|not|true|null|undefined|abs|concat|substring|[a-z$]{1,3}|\\$body|\\$twin|[0-9x.e]{1,5}|[-+*/%|<>=!?(),.\\[\\]{}'\"\\\\& ]|\\\\u[0-9a-f]{2,4}|é|😀|\n) ?){0,30}") {
        if let Ok(condition) = Condition::parse(&text) {
            let _ = condition.holds(&message());
            let again = Condition::parse(&condition.to_string());
            prop_assert!(again.is_ok(), "{} printed {}", text, condition);
        }
    }
}

#[test]
fn what_the_body_has_of_another_kind_is_different_and_what_it_does_not_have_is_null() {
    all(
        Is::True,
        &[
            // IoT Edge's BodyQueryTest, and members of the same kind.
            "$body.nothing = null",
            "$body.none = null",
            "$body.none.deeper = null",
            "$body.list[3] = null",
            "$body.list[9].x = null",
            "$body.history.t = null",
            "{$body.none} = null",
            "null = $body.none",
            "$body.none = $body.nothing",
            "NOT ($body.none != null)",
            "$body.temperature != null",
            "$body.place.state <> null",
            "$body.on <> null",
            "$body.temperature <> '100'",
            "$body.n <> 1",
            "$body.n <> 12",
            "12 <> $body.n",
            "$body.none <> '100'",
            "$body.none <> 1",
            "$body.nothing <> 1",
            "$body.on <> 1",
            "$body.off <> 'false'",
            "$body.temperature <> key1",
        ],
    );
    all(
        Is::False,
        &[
            "$body.temperature = '50'",
            "$body.temperature = null",
            "$body.n = 12",
            "$body.on = 1",
            "$body.nothing = 1",
            "$body.none = 1",
            "$body.none = 'x'",
            "$body.none.deeper = 1",
            "$body.none != null",
            "$body.case = 'upper'",
        ],
    );
    all(
        Is::Undefined,
        &["$none <> $body.none", "none = $body.none", "$body.none", "$body.none ?? undefined"],
    );
}

#[test]
fn a_value_of_each_kind_equals_its_own_kind_only_and_the_two_operators_are_opposites() {
    let kinds = ["$body.temperature", "$body.n", "$body.on", "$body.nothing", "$body.none"];
    let literals = ["50", "'12'", "true", "null", "null"];
    let is_null = |at: usize| at >= 3;
    for (at, value) in kinds.iter().enumerate() {
        for (other, literal) in literals.iter().chain(&kinds).enumerate() {
            let other = other % kinds.len();
            let is_equal = at == other || is_null(at) && is_null(other);
            let (equal, different) = (format!("{value} = {literal}"), format!("{literal} <> {value}"));
            let (yes, no) = if is_equal { (equal, different) } else { (different, equal) };
            all(Is::True, &[&yes]);
            all(Is::False, &[&no]);
        }
    }
}
