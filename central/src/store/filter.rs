//! `filter` of a list: the part of OData that IoT Central's lists take, as a condition of SQL.
//!
//! ```text
//! either     = both { "or" both }
//! both       = negated { "and" negated }
//! negated    = [ "not" ] ( "(" either ")" | comparison )
//! comparison = operand ( "eq" | "ne" | "lt" | "le" | "gt" | "ge" ) literal
//!            | "contains" "(" field "," text ")" [ ( "eq" | "ne" ) flag ]
//! operand    = field | ( "indexof" | "index" ) "(" field "," text ")"
//! literal    = text | flag | "null" | whole number
//! ```
//!
//! Texts are in single quotes, `''` is a quote inside. Names and keywords may be in any case. IoT Central's pages write `index` and
//! `contains` beside `indexof`: all three are taken. A field without a value is `null`: not equal to any text, and neither less nor
//! greater.

use rusqlite::types::Value;

/// The longest filter in bytes: what a URL holds in the proxies that are common.
const BYTES_MAX: usize = 4096;
/// Comparisons in a filter. Each costs a comparison for each row that is read.
const COMPARISONS_MAX: usize = 50;
/// Parentheses in each other. The reader calls itself for each.
const DEPTH_MAX: usize = 16;

/// A field that lists of a table may be filtered and ordered by.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// As the API writes it.
    pub name: &'static str,
    /// Its value in SQL.
    pub sql: &'static str,
    pub kind: Kind,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text that every row has.
    Id,
    /// A text, or `null`.
    Text,
    /// `true` or `false`.
    Flag,
}

/// A filter was not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// It is too long to be read.
    #[error("it has {0} bytes; write {BYTES_MAX} at the most")]
    TooLong(usize),
    /// It has too many parts.
    #[error("found more than {COMPARISONS_MAX} comparisons")]
    TooMany,
    /// It is nested too deep.
    #[error("found parentheses nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// Something else is where a part of it should be.
    #[error("found {found} at character {at}; expected {expected}")]
    Unexpected {
        found: String,
        /// Counted from 1.
        at: usize,
        /// What may stand there.
        expected: String,
    },
}

/// A condition of SQL with its values.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// Has a `?` for each of the values; empty for a filter that lets everything through.
    pub(super) sql: String,
    pub(super) values: Vec<Value>,
}

impl Filter {
    /// Reads a filter over these fields.
    ///
    /// # Errors
    /// [`InvalidFilter`].
    pub fn parse(text: &str, fields: &[Field]) -> Result<Self, InvalidFilter> {
        if text.len() > BYTES_MAX {
            return Err(InvalidFilter::TooLong(text.len()));
        }
        let tokens = tokens(text)?;
        let mut parser = Parser {
            tokens: &tokens,
            end: text.chars().count() + 1,
            fields,
            filter: Self::default(),
            comparisons: 0,
            depth: 0,
        };
        parser.either()?;
        match parser.tokens {
            [] => Ok(parser.filter),
            _ => parser.unexpected("`and`, `or` or the end"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Word(String),
    Text(String),
    Number(i64),
    Open,
    Close,
    Comma,
}

impl Part {
    fn shown(&self) -> String {
        match self {
            Self::Word(word) => format!("`{word}`"),
            Self::Text(text) => format!("`'{text}'`"),
            Self::Number(number) => format!("`{number}`"),
            Self::Open => "`(`".to_owned(),
            Self::Close => "`)`".to_owned(),
            Self::Comma => "`,`".to_owned(),
        }
    }
}

struct Token {
    part: Part,
    at: usize,
}

fn tokens(text: &str) -> Result<Vec<Token>, InvalidFilter> {
    let mut tokens = Vec::new();
    let mut characters = text.chars().enumerate().peekable();
    while let Some((index, character)) = characters.next() {
        let at = index + 1;
        let unexpected = |found: String, expected: &str| {
            Err(InvalidFilter::Unexpected { found, at, expected: expected.to_owned() })
        };
        let is_in_word = |c: &char| c.is_alphanumeric() || "_.-".contains(*c);
        let part = match character {
            ' ' | '\t' => continue,
            '(' => Part::Open,
            ')' => Part::Close,
            ',' => Part::Comma,
            '\'' => {
                let mut inside = String::new();
                loop {
                    match characters.next() {
                        None => return unexpected("a text without an end".to_owned(), "a `'` at its end"),
                        Some((_, '\'')) if characters.next_if(|(_, next)| *next == '\'').is_none() => break,
                        Some((_, character)) => inside.push(character),
                    }
                }
                Part::Text(inside)
            }
            first if is_in_word(&first) => {
                let mut word = String::from(first);
                while let Some((_, next)) = characters.next_if(|(_, next)| is_in_word(next)) {
                    word.push(next);
                }
                word.parse().map_or_else(|_| Part::Word(word), Part::Number)
            }
            other => return unexpected(format!("`{other}`"), "a field, an operator or a value"),
        };
        tokens.push(Token { part, at });
    }
    Ok(tokens)
}

struct Parser<'a> {
    /// What is not read yet.
    tokens: &'a [Token],
    /// Behind the last character.
    end: usize,
    fields: &'a [Field],
    filter: Filter,
    comparisons: usize,
    depth: usize,
}

/// What is compared with a literal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operand {
    Id,
    Text,
    Flag,
    /// Position of one text in another.
    Place,
}

impl From<Kind> for Operand {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Id => Self::Id,
            Kind::Text => Self::Text,
            Kind::Flag => Self::Flag,
        }
    }
}

impl Parser<'_> {
    fn unexpected<T>(&self, expected: &str) -> Result<T, InvalidFilter> {
        let found = self.tokens.first().map_or("the end".to_owned(), |token| token.part.shown());
        let at = self.tokens.first().map_or(self.end, |token| token.at);
        Err(InvalidFilter::Unexpected { found, at, expected: expected.to_owned() })
    }

    fn next(&mut self) -> Option<&Part> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(&first.part)
    }

    fn peek(&self) -> Option<&Part> {
        self.tokens.first().map(|token| &token.part)
    }

    fn word(&self) -> Option<String> {
        match self.peek() {
            Some(Part::Word(word)) => Some(word.to_ascii_lowercase()),
            _ => None,
        }
    }

    fn take_word(&mut self, word: &str) -> bool {
        let is_next = self.word().is_some_and(|next| next == word);
        if is_next {
            self.next();
        }
        is_next
    }

    fn expect(&mut self, part: &Part) -> Result<(), InvalidFilter> {
        if self.peek() != Some(part) {
            return self.unexpected(&part.shown());
        }
        self.next();
        Ok(())
    }

    fn either(&mut self) -> Result<(), InvalidFilter> {
        // In parentheses, because further conditions are joined to the filter by `AND`.
        self.sql("(");
        self.both()?;
        while self.take_word("or") {
            self.sql(" OR ");
            self.both()?;
        }
        self.sql(")");
        Ok(())
    }

    fn both(&mut self) -> Result<(), InvalidFilter> {
        self.negated()?;
        while self.take_word("and") {
            self.sql(" AND ");
            self.negated()?;
        }
        Ok(())
    }

    fn negated(&mut self) -> Result<(), InvalidFilter> {
        if self.take_word("not") {
            self.sql("NOT ");
        }
        if self.peek() != Some(&Part::Open) {
            return self.comparison();
        }
        self.next();
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(InvalidFilter::TooDeep);
        }
        self.either()?;
        self.depth -= 1;
        self.expect(&Part::Close)
    }

    fn comparison(&mut self) -> Result<(), InvalidFilter> {
        self.comparisons += 1;
        if self.comparisons > COMPARISONS_MAX {
            return Err(InvalidFilter::TooMany);
        }
        let function = self.word().unwrap_or_default();
        let (operand, sql) = match function.as_str() {
            "contains" => {
                let sql = format!("ifnull({} > 0, 0)", self.place()?);
                // Alone it is a condition; OData lets it be compared with true and false too.
                if !matches!(self.word().as_deref(), Some("eq" | "ne")) {
                    self.sql(&sql);
                    return Ok(());
                }
                (Operand::Flag, sql)
            }
            "indexof" | "index" => (Operand::Place, format!("{} - 1", self.place()?)),
            _ => {
                let field = self.field()?;
                (field.kind.into(), field.sql.to_owned())
            }
        };
        let operator = self.operator()?;
        let value = self.literal(operand)?;
        self.filter.values.push(value);
        // A comparison with null is unknown in SQL and false in OData, where `not` makes it true. `IS` knows null, and on an id
        // nothing may stand around it: only so an index is used.
        if operator.starts_with("IS") || operand == Operand::Id {
            self.sql(&format!("{sql} {operator} ?"));
        } else {
            self.sql(&format!("ifnull({sql} {operator} ?, 0)"));
        }
        Ok(())
    }

    /// `indexof(field,'text')`: where the text begins, counted from 1, and 0 when the field does not hold it.
    fn place(&mut self) -> Result<String, InvalidFilter> {
        self.next();
        self.expect(&Part::Open)?;
        let is_text = |field: Field| field.kind != Kind::Flag;
        if !self.word().and_then(|word| find(self.fields, &word)).is_none_or(is_text) {
            return self.unexpected("a field that is a text");
        }
        let field = self.field()?;
        self.expect(&Part::Comma)?;
        let text = self.literal(Operand::Id)?;
        self.filter.values.push(text);
        self.expect(&Part::Close)?;
        Ok(format!("instr({}, ?)", field.sql))
    }

    fn field(&mut self) -> Result<Field, InvalidFilter> {
        let found = self.word().and_then(|word| find(self.fields, &word));
        match found {
            Some(field) => {
                self.next();
                Ok(field)
            }
            None => {
                let names: Vec<&str> = self.fields.iter().map(|field| field.name).collect();
                self.unexpected(&format!("one of the fields {}", names.join(", ")))
            }
        }
    }

    fn operator(&mut self) -> Result<&'static str, InvalidFilter> {
        let operator = match self.word().as_deref() {
            Some("eq") => "IS",
            Some("ne") => "IS NOT",
            Some("lt") => "<",
            Some("le") => "<=",
            Some("gt") => ">",
            Some("ge") => ">=",
            _ => return self.unexpected("one of the operators eq, ne, lt, le, gt, ge"),
        };
        self.next();
        Ok(operator)
    }

    fn literal(&mut self, operand: Operand) -> Result<Value, InvalidFilter> {
        let word = self.word();
        let flag = word.as_deref().and_then(|word| word.parse::<bool>().ok());
        let value = match (operand, self.peek(), flag) {
            (Operand::Text | Operand::Id, Some(Part::Text(text)), _) => Value::Text(text.clone()),
            (Operand::Place, Some(Part::Number(number)), _) => Value::Integer(*number),
            (Operand::Flag, _, Some(flag)) => Value::Integer(i64::from(flag)),
            (Operand::Text, ..) if word.as_deref() == Some("null") => Value::Null,
            (Operand::Id, ..) => return self.unexpected("a text in single quotes"),
            (Operand::Text, ..) => return self.unexpected("a text in single quotes, or null"),
            (Operand::Flag, ..) => return self.unexpected("true or false"),
            (Operand::Place, ..) => return self.unexpected("a whole number"),
        };
        self.next();
        Ok(value)
    }

    fn sql(&mut self, sql: &str) {
        self.filter.sql.push_str(sql);
    }
}

/// The field of this name, in any case.
pub(super) fn find(fields: &[Field], name: &str) -> Option<Field> {
    fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: &[Field] = &[
        Field { name: "id", sql: "id", kind: Kind::Id },
        Field { name: "displayName", sql: "name", kind: Kind::Text },
        Field { name: "enabled", sql: "enabled", kind: Kind::Flag },
    ];

    #[test]
    fn a_filter_becomes_a_condition_whose_texts_are_values() {
        let text = |text: &str| Value::Text(text.to_owned());
        for (filter, sql, values) in [
            ("id eq 'a'", "(id IS ?)", vec![text("a")]),
            ("id gt 'it''s'", "(id > ?)", vec![text("it's")]),
            ("displayName LE '''; --'", "(ifnull(name <= ?, 0))", vec![text("'; --")]),
            ("DISPLAYNAME ne null", "(name IS NOT ?)", vec![Value::Null]),
            ("Enabled ne true", "(enabled IS NOT ?)", vec![Value::Integer(1)]),
            (
                "indexof(displayName, 'x') ge 0",
                "(ifnull(instr(name, ?) - 1 >= ?, 0))",
                vec![text("x"), Value::Integer(0)],
            ),
            ("contains(id,'x')", "(ifnull(instr(id, ?) > 0, 0))", vec![text("x")]),
            (
                "contains(id,'x') eq false",
                "(ifnull(instr(id, ?) > 0, 0) IS ?)",
                vec![text("x"), Value::Integer(0)],
            ),
            (
                "id eq '1' or id eq '2' and not (enabled eq true or id eq '3')",
                "(id IS ? OR id IS ? AND NOT (enabled IS ? OR id IS ?))",
                vec![text("1"), text("2"), Value::Integer(1), text("3")],
            ),
        ] {
            let parsed = Filter::parse(filter, FIELDS).unwrap_or_else(|error| panic!("{filter}: {error}"));
            assert_eq!((parsed.sql.as_str(), parsed.values), (sql, values), "{filter}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused_with_its_place_and_what_may_stand_there() {
        let deep = format!("{}id eq 'a'{}", "(".repeat(17), ")".repeat(17));
        let many = vec!["id eq 'a'"; 51].join(" and ");
        let long = format!("id eq '{}'", "a".repeat(4096));
        for (filter, word) in [
            ("", "found the end at character 1"),
            ("id", "operators eq, ne, lt, le, gt, ge"),
            ("id eq", "found the end at character 6; expected a text in single quotes"),
            ("id eq a", "found `a` at character 7"),
            ("id eq 'a", "text without an end at character 7"),
            ("id = 'a'", "found `=` at character 4"),
            ("id eq 'a' id eq 'b'", "found `id` at character 11; expected `and`, `or` or the end"),
            ("ids eq 'a'", "one of the fields id, displayName, enabled"),
            ("id eq null", "expected a text in single quotes"),
            ("enabled eq 'true'", "expected true or false"),
            ("indexof(enabled,'x') ge 0", "a field that is a text"),
            ("indexof(id,'x')", "operators"),
            ("indexof(id,'x') ge '0'", "a whole number"),
            ("indexof(id 'x') ge 0", "expected `,`"),
            ("(id eq 'a'", "expected `)`"),
            ("id eq 'a')", "found `)` at character 10"),
            ("startswith(id,'a')", "one of the fields"),
            ("id eq 'a'; DROP TABLE devices", "found `;`"),
            (&deep, "nested deeper"),
            (&many, "more than 50"),
            (&long, "4096 at the most"),
        ] {
            let error = Filter::parse(filter, FIELDS).expect_err(filter).to_string();
            assert!(error.contains(word), "{filter}: {error}");
        }
    }
}
