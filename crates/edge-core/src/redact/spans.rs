//! Where the values of a JSON text stand in it, without a tree of them: a tree takes thirty times the memory of its text.

use std::borrow::Cow;
use std::ops::Range;

use serde::de::IgnoredAny;

/// Levels that are read, as many as serde_json reads into a tree.
const DEPTH_MAX: usize = 127;

/// A JSON text, and where each of its objects and lists ends.
pub(super) struct Spans<'t> {
    text: &'t str,
    /// Begin and end of each object and list, by their begins.
    ends: Vec<(usize, usize)>,
}

/// A member of an object: its name and its value as they are written.
pub(super) struct Member {
    pub(super) name: Range<usize>,
    pub(super) value: Range<usize>,
}

/// What a value is, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
    Text,
    Number,
    /// `true`, `false` and `null`.
    Literal,
}

impl<'t> Spans<'t> {
    /// `None` for a text that is not JSON, or is nested deeper than anything that reads it.
    pub(super) fn of(text: &'t str) -> Option<Self> {
        // Checked by serde_json first, so that what follows need not know the grammar of JSON.
        serde_json::from_str::<IgnoredAny>(text).ok()?;
        let bytes = text.as_bytes();
        let (mut ends, mut open, mut at): (Vec<(usize, usize)>, Vec<usize>, usize) = Default::default();
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'"' => at = end_of_text(bytes, at) - 1,
                b'{' | b'[' if open.len() == DEPTH_MAX => return None,
                b'{' | b'[' => {
                    open.push(ends.len());
                    ends.push((at, at));
                }
                b'}' | b']' => ends[open.pop()?].1 = at + 1,
                _ => {}
            }
            at += 1;
        }
        Some(Self { text, ends })
    }

    /// The value that all of it is.
    pub(super) fn whole(&self) -> Range<usize> {
        self.value_at(self.next(0))
    }

    pub(super) fn kind(&self, value: &Range<usize>) -> Kind {
        match self.text.as_bytes().get(value.start) {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::Text,
            Some(b't' | b'f' | b'n') => Kind::Literal,
            _ => Kind::Number,
        }
    }

    /// Where the first item of a list or the first member of an object may begin.
    pub(super) fn first(&self, of: &Range<usize>) -> usize {
        of.start + 1
    }

    /// The next item of a list, behind the end of the one before.
    pub(super) fn item(&self, behind: usize) -> Option<Range<usize>> {
        let start = self.next(behind);
        let is_end = self.text.as_bytes().get(start).is_none_or(|byte| matches!(byte, b']' | b'}'));
        (!is_end).then(|| self.value_at(start))
    }

    /// The next member of an object, behind the end of the value before.
    pub(super) fn member(&self, behind: usize) -> Option<Member> {
        let name = self.item(behind)?;
        let value = self.value_at(self.next(name.end));
        Some(Member { name, value })
    }

    /// What a text stands for; `None` for one that stands for no Unicode text.
    pub(super) fn text(&self, value: &Range<usize>) -> Option<Cow<'t, str>> {
        let written = self.text.get(value.clone())?;
        let inner = written.strip_prefix('"')?.strip_suffix('"')?;
        if !inner.contains('\\') {
            return Some(Cow::Borrowed(inner));
        }
        serde_json::from_str(written).ok().map(Cow::Owned)
    }

    /// Where the next value or bracket begins.
    fn next(&self, from: usize) -> usize {
        let is_between = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | b':');
        let bytes = &self.text.as_bytes()[from..];
        from + bytes.iter().take_while(|byte| is_between(byte)).count()
    }

    fn value_at(&self, start: usize) -> Range<usize> {
        let bytes = self.text.as_bytes();
        let end = match bytes.get(start) {
            Some(b'"') => end_of_text(bytes, start),
            Some(b'{' | b'[') => match self.ends.binary_search_by_key(&start, |(begin, _)| *begin) {
                Ok(found) => self.ends[found].1,
                Err(_) => bytes.len(),
            },
            _ => {
                let is_end = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | b']' | b'}');
                start + bytes[start.min(bytes.len())..].iter().take_while(|byte| !is_end(byte)).count()
            }
        };
        start..end
    }
}

/// Behind the closing quote of the text that begins at `start`.
fn end_of_text(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    loop {
        match bytes.get(at) {
            Some(b'\\') => at += 2,
            Some(b'"') => return at + 1,
            Some(_) => at += 1,
            None => return bytes.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;

    fn tree(spans: &Spans<'_>, value: &Range<usize>) -> Value {
        match spans.kind(value) {
            Kind::Object => {
                let mut members = Map::new();
                let mut at = spans.first(value);
                while let Some(member) = spans.member(at) {
                    at = member.value.end;
                    let name = spans.text(&member.name).unwrap().into_owned();
                    members.insert(name, tree(spans, &member.value));
                }
                members.into()
            }
            Kind::Array => {
                let mut items = Vec::new();
                let mut at = spans.first(value);
                while let Some(item) = spans.item(at) {
                    at = item.end;
                    items.push(tree(spans, &item));
                }
                items.into()
            }
            Kind::Text => spans.text(value).unwrap().into_owned().into(),
            Kind::Number | Kind::Literal => serde_json::from_str(&spans.text[value.clone()]).unwrap(),
        }
    }

    fn documents() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(".{0,6}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_value_is_where_its_span_says(document in documents(), is_pretty in any::<bool>()) {
            let text = if is_pretty { format!("{document:#}\n") } else { document.to_string() };
            let spans = Spans::of(&text).unwrap();
            prop_assert_eq!(tree(&spans, &spans.whole()), document);
        }

        #[test]
        fn what_is_not_json_has_no_spans(text in "[\\[\\]{},:\"\\\\a1 ]{0,12}") {
            prop_assert_eq!(Spans::of(&text).is_some(), serde_json::from_str::<Value>(&text).is_ok());
        }
    }

    #[test]
    fn a_text_that_is_nested_without_end_uses_no_stack() {
        let deep = format!("{}1{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert!(Spans::of(&deep).is_none());
        assert!(Spans::of(&json!([[[1]]]).to_string()).is_some());
    }
}
