//! The tokens of a condition, each with its place.
//!
//! Names are IoT Edge's (a letter may be almost anything, so `some-property` is one name) with the operators taken out of
//! them: there `a!='b'` asks for a property named `a!`, here it compares. What a name cannot hold is written
//! `['like this']`.

use super::error::Wrong;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Text(String),
    Number(f64),
    /// A name, a keyword or a function.
    Name(String),
    /// `['name']`: always a property.
    Quoted(String),
    /// `$name`, `$body.path[0]`; with what follows the `$`.
    Dollar(String),
    /// `{$name}`: never a property; with what follows the `$`.
    Braced(String),
    /// `+ - * / % || < <= > >= = != <> ?? ( ) ,`
    Symbol(&'static str),
    /// The end, or the word that ends a condition within a longer text.
    End,
}

/// A word, where it begins and where it ends.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Word {
    pub(super) token: Token,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Longer ones first.
const SYMBOLS: [&str; 17] =
    ["||", "<=", ">=", "!=", "<>", "??", "+", "-", "*", "/", "%", "<", ">", "=", "(", ")", ","];

/// Reads the word that begins at `from` or behind the blanks and comments there. `stop`: the name that ends it.
pub(super) fn next_word(text: &str, from: usize, stop: Option<&str>) -> Result<Word, Wrong> {
    let start = skip_blanks(text, from)?;
    let rest = &text[start..];
    let Some(first) = rest.chars().next() else { return Ok(Word { token: Token::End, start, end: start }) };
    let (token, length) = match first {
        '"' | '\'' => read_text(rest, start).map(|(read, length)| (Token::Text(read), length))?,
        '$' => {
            let length = dollar_length(rest, start)?;
            (Token::Dollar(rest[1..length].to_owned()), length)
        }
        '{' => braced(rest, start)?,
        '[' => bracketed(rest, start)?,
        _ => match number(rest, start)? {
            Some((number, length)) => (Token::Number(number), length),
            None => match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
                Some(symbol) => (Token::Symbol(symbol), symbol.len()),
                None => name(rest, start)?,
            },
        },
    };
    let token = match token {
        Token::Name(name) if stop.is_some_and(|stop| name.eq_ignore_ascii_case(stop)) => Token::End,
        token => token,
    };
    // The name that ends a condition is not part of it: the caller reads on from there.
    let end = if token == Token::End { start } else { start + length };
    Ok(Word { token, start, end })
}

fn skip_blanks(text: &str, from: usize) -> Result<usize, Wrong> {
    let mut at = from;
    loop {
        let rest = &text[at..];
        at += rest.len() - rest.trim_start().len();
        if !text[at..].starts_with("/*") {
            return Ok(at);
        }
        match text[at + 2..].find("*/") {
            Some(length) => at += 2 + length + 2,
            None => return Err(Wrong::new(at, "a comment without its end", "end it with */")),
        }
    }
}

/// Whether a character is part of a name when this one comes after it.
pub(super) fn is_name_char(c: char, next: Option<char>) -> bool {
    match c {
        '(' | ')' | '<' | '>' | '@' | ',' | ';' | ':' | '\\' | '"' | '\'' | '/' | '[' | ']' | '?' | '='
        | '{' | '}' | '+' | '*' | '%' => false,
        '!' => next != Some('='),
        '|' | '&' => next != Some(c),
        c => !c.is_whitespace() && !c.is_control(),
    }
}

/// The length of the name at the beginning. A minus at its end is an operator, not a part of it.
fn name_length(text: &str) -> usize {
    let mut chars = text.char_indices().peekable();
    let mut end = 0;
    while let Some((at, c)) = chars.next() {
        if !is_name_char(c, chars.peek().map(|(_, next)| *next)) {
            break;
        }
        end = at + c.len_utf8();
    }
    text[..end].trim_end_matches('-').len()
}

fn name(text: &str, offset: usize) -> Result<(Token, usize), Wrong> {
    let begins = text.starts_with(|c: char| !"!|&.".contains(c));
    let length = if begins { name_length(text) } else { 0 };
    if length > 0 {
        return Ok((Token::Name(text[..length].to_owned()), length));
    }
    let found: String = text.chars().take(1).collect();
    let allowed = match text.as_bytes() {
        [b'!', ..] => "write NOT",
        [b'&', ..] => "write AND",
        [b'|', ..] => "write OR; || joins texts",
        _ => "write a property, $body.path, a text in quotes, a number, or a function",
    };
    Err(Wrong::new(offset, format!("the character {found:?}"), allowed))
}

/// The length of `$name` with its path: names joined by dots, and brackets.
fn dollar_length(text: &str, offset: usize) -> Result<usize, Wrong> {
    let mut end = 1;
    loop {
        let rest = &text[end..];
        if let Some(inside) = rest.strip_prefix('[') {
            end += 1;
            if inside.starts_with(['"', '\'']) {
                end += read_text(&text[end..], offset + end)?.1;
            }
            match text[end..].find(']') {
                Some(length) => end += length + 1,
                None => return Err(Wrong::new(offset + end, "a [ without its ]", "close it with ]")),
            }
            continue;
        }
        match name_length(rest) {
            0 if end == 1 => {
                return Err(Wrong::new(offset, "a $ without a name", "write $name, or $body.path"));
            }
            0 => return Ok(end),
            length => end += length,
        }
    }
}

fn braced(text: &str, offset: usize) -> Result<(Token, usize), Wrong> {
    const FORM: &str = "write {$name} for a system property, {name} for an application property";
    let inside = text[1..].trim_start();
    let begin = text.len() - inside.len();
    let (token, end) = if inside.starts_with('$') {
        let length = dollar_length(inside, offset + begin)?;
        (Token::Braced(inside[1..length].to_owned()), begin + length)
    } else {
        let length = inside.find('}').unwrap_or(inside.len());
        (Token::Quoted(inside[..length].trim_end().to_owned()), begin + length)
    };
    let after = text[end..].trim_start();
    match (after.starts_with('}'), &token) {
        (true, Token::Quoted(name)) if name.is_empty() => {
            Err(Wrong::new(offset, "braces with nothing in them", FORM))
        }
        (true, _) => Ok((token, text.len() - after.len() + 1)),
        (false, _) => Err(Wrong::new(offset, "a { without its }", FORM)),
    }
}

fn bracketed(text: &str, offset: usize) -> Result<(Token, usize), Wrong> {
    const FORM: &str = "write ['name'] for a property whose name no plain word can be";
    if !text[1..].starts_with(['"', '\'']) {
        return Err(Wrong::new(offset, "a [ that no name follows", FORM));
    }
    let (name, length) = read_text(&text[1..], offset + 1)?;
    if text[1 + length..].starts_with(']') {
        Ok((Token::Quoted(name), length + 2))
    } else {
        Err(Wrong::new(offset, "a [ without its ]", FORM))
    }
}

/// A number at the beginning; `None` if there is a name or something else.
fn number(text: &str, offset: usize) -> Result<Option<(f64, usize)>, Wrong> {
    let digits = |from: usize| text[from..].bytes().take_while(u8::is_ascii_digit).count();
    let byte = |at: usize| text.as_bytes().get(at).copied().unwrap_or(0);
    if byte(0) == b'0' && matches!(byte(1), b'x' | b'X') && byte(2).is_ascii_hexdigit() {
        let length = text[2..].bytes().take_while(u8::is_ascii_hexdigit).count();
        return match i64::from_str_radix(&text[2..2 + length], 16) {
            // What follows makes it a name, as in `0x1z`.
            _ if name_length(text) > 2 + length && byte(2 + length) != b'-' => Ok(None),
            Ok(integer) => Ok(Some((integer as f64, 2 + length))),
            Err(_) => {
                Err(Wrong::new(offset, "a hexadecimal integer of more than 63 bits", "write a smaller one"))
            }
        };
    }
    let mut end = digits(0);
    if byte(end) == b'.' && byte(end + 1).is_ascii_digit() {
        end += 1 + digits(end + 1);
    }
    if end == 0 {
        return Ok(None);
    }
    if matches!(byte(end), b'e' | b'E') {
        let sign = usize::from(matches!(byte(end + 1), b'+' | b'-'));
        match digits(end + 1 + sign) {
            0 => {}
            length => end += 1 + sign + length,
        }
    }
    let word = name_length(text);
    // A minus behind digits is an operator: `1-a` is no name.
    if word > end && byte(end) != b'-' {
        let is_name = text[..word].contains(|c: char| !c.is_ascii_digit() && c != '.');
        return if is_name {
            Ok(None)
        } else {
            Err(Wrong::new(offset, format!("{:?}", &text[..word]), "write a number such as 1.5"))
        };
    }
    Ok(text[..end].parse().ok().map(|number| (number, end)))
}

/// Reads a text in quotes at the beginning, with its escapes; gives its length with the quotes.
pub(super) fn read_text(text: &str, offset: usize) -> Result<(String, usize), Wrong> {
    const ESCAPES: &str = r#"the escapes are \", \', \\ and \u with four hexadecimal digits"#;
    let mut chars = text.char_indices();
    let Some((_, quote)) = chars.next() else {
        return Err(Wrong::new(offset, "the end", "write a text in quotes"));
    };
    let mut read = String::new();
    // Two escapes may make one character: the halves of a surrogate pair.
    let mut units: Vec<u16> = Vec::new();
    let mut units_at = 0;
    while let Some((at, c)) = chars.next() {
        let escaped = (c == '\\').then(|| &text[at + 1..]);
        let unit = escaped.filter(|rest| rest.starts_with(['u', 'U'])).map(|rest| {
            let digits = rest.get(1..5).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
            digits.and_then(|digits| u16::from_str_radix(digits, 16).ok())
        });
        if let Some(unit) = unit {
            let unit = unit
                .ok_or_else(|| Wrong::new(offset + at, "a \\u without four hexadecimal digits", ESCAPES))?;
            if units.is_empty() {
                units_at = at;
            }
            units.push(unit);
            chars.nth(4);
            continue;
        }
        take_units(&mut units, &mut read).map_err(|()| {
            Wrong::new(
                offset + units_at,
                "half of a surrogate pair",
                "write both halves, or the character itself",
            )
        })?;
        match escaped {
            None if c == quote => return Ok((read, at + 1)),
            None => read.push(c),
            Some(rest) => match rest.chars().next() {
                Some(plain @ ('"' | '\'' | '\\')) => {
                    read.push(plain);
                    chars.next();
                }
                other => {
                    let found = format!("the escape \\{}", other.map(String::from).unwrap_or_default());
                    return Err(Wrong::new(offset + at, found, ESCAPES));
                }
            },
        }
    }
    Err(Wrong::new(offset, "a text without its closing quote", format!("close it with {quote}")))
}

fn take_units(units: &mut Vec<u16>, read: &mut String) -> Result<(), ()> {
    for c in char::decode_utf16(units.drain(..)) {
        read.push(c.map_err(drop)?);
    }
    Ok(())
}

/// A text as it is written in a condition.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for c in text.chars() {
        match c {
            '\'' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    quoted.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => quoted.push(c),
        }
    }
    quoted.push('\'');
    quoted
}
