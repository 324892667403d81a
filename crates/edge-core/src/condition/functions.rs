//! The functions of conditions, by name, with what they ask for and what they give.

use std::borrow::Cow;

use super::kind::Kind;
use super::value::{Value, parse_number};

/// Declares the functions with their names.
macro_rules! functions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal: $arguments:expr => $result:ident,)+) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Function {
            $($(#[$doc])* $variant,)+
        }

        impl Function {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// As it is written, without regard to case.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            pub(super) fn arguments(self) -> Arguments {
                match self { $(Self::$variant => $arguments,)+ }
            }

            pub(super) fn result(self) -> Kind {
                match self { $(Self::$variant => Kind::$result,)+ }
            }
        }
    };
}

/// What a function asks for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Arguments {
    /// These, in order.
    Each(&'static [Kind]),
    /// These, the last of which may be left out.
    OneLess(&'static [Kind]),
    /// So many of this, or more.
    AtLeast(usize, Kind),
}

const NUMBER: Arguments = Arguments::Each(&[Kind::Number]);
const TEXT: Arguments = Arguments::Each(&[Kind::Text]);
const TWO_TEXTS: Arguments = Arguments::Each(&[Kind::Text, Kind::Text]);
const ANY: Arguments = Arguments::Each(&[Kind::Any]);

functions! {
    Abs = "abs": NUMBER => Number,
    /// The next integer above.
    Ceiling = "ceiling": NUMBER => Number,
    /// e to the power of it.
    Exp = "exp": NUMBER => Number,
    /// The next integer below.
    Floor = "floor": NUMBER => Number,
    /// The first to the power of the second.
    Power = "power": Arguments::Each(&[Kind::Number, Kind::Number]) => Number,
    /// -1, 0 or 1.
    Sign = "sign": NUMBER => Number,
    /// The square root; undefined below 0.
    Sqrt = "sqrt": NUMBER => Number,
    Square = "square": NUMBER => Number,
    /// The number that a text holds; undefined when it holds none.
    AsNumber = "as_number": Arguments::Each(&[Kind::Property]) => Number,
    /// Whether it is `true` or `false`.
    IsBool = "is_bool": ANY => Bool,
    /// Whether it is anything.
    IsDefined = "is_defined": ANY => Bool,
    /// Whether it is null.
    IsNull = "is_null": ANY => Bool,
    /// Whether it is a finite number. A property is none: it is a text.
    IsNumber = "is_number": ANY => Bool,
    /// Whether it is a text.
    IsString = "is_string": ANY => Bool,
    /// The texts one behind the other.
    Concat = "concat": Arguments::AtLeast(2, Kind::Text) => Text,
    /// Whether the first holds the second.
    Contains = "contains": TWO_TEXTS => Bool,
    /// Whether the first ends with the second.
    EndsWith = "ends_with": TWO_TEXTS => Bool,
    /// Where the second begins in the first, in characters from 0; -1 when it does not.
    IndexOf = "index_of": TWO_TEXTS => Number,
    Length = "length": TEXT => Number,
    /// In lower case.
    Lower = "lower": TEXT => Text,
    /// Whether the first starts with the second.
    StartsWith = "starts_with": TWO_TEXTS => Bool,
    /// From a character on (from 0), to the end or so many; undefined beyond the text.
    Substring = "substring": Arguments::OneLess(&[Kind::Text, Kind::Number, Kind::Number]) => Text,
    /// In upper case.
    Upper = "upper": TEXT => Text,
}

impl Function {
    /// The one of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|function| function.name().eq_ignore_ascii_case(name))
    }

    /// Whether so many arguments are right.
    pub(super) fn takes(self, count: usize) -> bool {
        match self.arguments() {
            Arguments::Each(kinds) => count == kinds.len(),
            Arguments::OneLess(kinds) => count == kinds.len() || count + 1 == kinds.len(),
            Arguments::AtLeast(least, _) => count >= least,
        }
    }

    /// What the argument at this place must be.
    pub(super) fn argument(self, index: usize) -> Kind {
        match self.arguments() {
            Arguments::Each(kinds) | Arguments::OneLess(kinds) => {
                kinds.get(index).copied().unwrap_or(Kind::Any)
            }
            Arguments::AtLeast(_, kind) => kind,
        }
    }

    /// How many arguments it takes, as text.
    pub(super) fn counts(self) -> String {
        match self.arguments() {
            Arguments::Each(kinds) => plural(kinds.len()),
            Arguments::OneLess(kinds) => format!("{} or {}", kinds.len() - 1, plural(kinds.len())),
            Arguments::AtLeast(least, _) => format!("at least {}", plural(least)),
        }
    }

    /// Applies it. The count of the arguments is right; a wrong one among them makes the result undefined.
    pub(super) fn apply<'a>(self, arguments: &[Value<'a>]) -> Value<'a> {
        match self {
            Self::IsDefined => Value::Bool(arguments[0] != Value::Undefined),
            Self::IsNull => Value::Bool(arguments[0] == Value::Null),
            Self::IsBool => Value::Bool(matches!(arguments[0], Value::Bool(_))),
            Self::IsNumber => {
                Value::Bool(matches!(arguments[0], Value::Number(number) if number.is_finite()))
            }
            Self::IsString => Value::Bool(arguments[0].as_text().is_some()),
            other => other.apply_strictly(arguments).unwrap_or(Value::Undefined),
        }
    }

    /// `None` when an argument is not what it must be.
    fn apply_strictly<'a>(self, arguments: &[Value<'a>]) -> Option<Value<'a>> {
        let number = |index: usize| arguments.get(index)?.as_number();
        let text = |index: usize| arguments.get(index)?.as_text();
        let of_number = |apply: fn(f64) -> f64| number(0).map(|it| Value::number(apply(it)));
        let of_texts = |apply: fn(&str, &str) -> bool| Some(Value::Bool(apply(text(0)?, text(1)?)));
        match self {
            Self::Abs => of_number(f64::abs),
            Self::Ceiling => of_number(f64::ceil),
            Self::Exp => of_number(f64::exp),
            Self::Floor => of_number(f64::floor),
            // Rust's own signum of 0 is 1.
            Self::Sign => of_number(|it| if it == 0.0 { 0.0 } else { it.signum() }),
            Self::Sqrt => of_number(f64::sqrt),
            Self::Square => of_number(|it| it * it),
            Self::Power => Some(Value::number(number(0)?.powf(number(1)?))),
            Self::AsNumber => match &arguments[0] {
                Value::Number(it) => Some(Value::Number(*it)),
                other => parse_number(other.as_text()?).map(Value::number),
            },
            Self::Concat => {
                let texts: Option<Vec<&str>> = arguments.iter().map(Value::as_text).collect();
                Some(Value::Text(Cow::Owned(texts?.concat())))
            }
            Self::Contains => of_texts(|it, part| it.contains(part)),
            Self::EndsWith => of_texts(|it, part| it.ends_with(part)),
            Self::StartsWith => of_texts(|it, part| it.starts_with(part)),
            Self::IndexOf => {
                let (it, part) = (text(0)?, text(1)?);
                let at = it.find(part).map_or(-1.0, |at| it[..at].chars().count() as f64);
                Some(Value::Number(at))
            }
            Self::Length => Some(Value::Number(text(0)?.chars().count() as f64)),
            Self::Lower => Some(Value::Text(Cow::Owned(text(0)?.to_lowercase()))),
            Self::Upper => Some(Value::Text(Cow::Owned(text(0)?.to_uppercase()))),
            Self::Substring => {
                let (it, start) = (text(0)?, number(1)?);
                let left = it.chars().count() as f64 - start;
                let length = match arguments.get(2) {
                    Some(length) => length.as_number()?,
                    None => left,
                };
                // IoT Edge: undefined, not cut, when it reaches beyond the text.
                let is_inside = start >= 0.0 && left >= 0.0 && (0.0..=left).contains(&length);
                is_inside.then(|| {
                    let part = it.chars().skip(start as usize).take(length as usize).collect();
                    Value::Text(Cow::Owned(part))
                })
            }
            Self::IsBool | Self::IsDefined | Self::IsNull | Self::IsNumber | Self::IsString => None,
        }
    }
}

fn plural(count: usize) -> String {
    match count {
        1 => "1 argument".to_owned(),
        count => format!("{count} arguments"),
    }
}
