//! From text to an expression: by precedence, left to right, refusing what can never come out.

use super::ast::{Arithmetic, Compare, DollarReference, Expr, Reference, binding};
use super::error::Wrong;
use super::functions::Function;
use super::inference::{described, kind_of};
use super::kind::Kind;
use super::lexer::{Token, Word, next_word};
use super::path::Path;
use super::subject::TwinSection;
use super::value::Value;

/// How deep expressions may nest. Reading, asking and printing one take a frame of the stack for each level.
const DEPTH_MAX: usize = 60;

/// Reads an expression at `from`, up to the end of the text or the name `stop`; gives where it ends.
pub(super) fn parse(text: &str, from: usize, stop: Option<&str>) -> Result<(Expr, usize), Wrong> {
    let mut parser = Parser { text, stop, word: next_word(text, from, stop)?, depth: 0 };
    let start = parser.word.start;
    let (expr, _) = parser.expression(binding::COALESCE)?;
    if parser.word.token != Token::End {
        return Err(parser.unexpected("write AND, OR or another operator between two parts"));
    }
    if !kind_of(&expr).is_condition() {
        let found = format!("{} as a condition", described(&expr));
        return Err(Wrong::new(start, found, "compare it with something"));
    }
    Ok((expr, parser.word.start))
}

struct Parser<'a> {
    text: &'a str,
    stop: Option<&'a str>,
    word: Word,
    depth: usize,
}

/// An expression and how deep it is.
type Deep = (Expr, usize);

enum Infix {
    Arithmetic(Arithmetic),
    Concat,
    Compare(Compare),
    And,
    Or,
    Coalesce,
}

impl Parser<'_> {
    fn advance(&mut self) -> Result<Word, Wrong> {
        let next = next_word(self.text, self.word.end, self.stop)?;
        Ok(std::mem::replace(&mut self.word, next))
    }

    /// The next word, as written in the text.
    fn found(&self) -> String {
        match (&self.word.token, self.stop) {
            (Token::End, _) if self.word.start >= self.text.len() => "the end".to_owned(),
            (Token::End, Some(stop)) => format!("{stop:?}"),
            _ => format!("{:?}", &self.text[self.word.start..self.word.end]),
        }
    }

    fn unexpected(&self, allowed: &str) -> Wrong {
        let allowed = match &self.word.token {
            Token::Symbol("=") => "write one = for equality",
            Token::Name(name) if ["like", "in", "between", "is"].contains(&&*name.to_ascii_lowercase()) => {
                "LIKE, IN, BETWEEN and IS are not in this language; write CONTAINS(a, b), several =, or IS_DEFINED(a)"
            }
            _ => allowed,
        };
        Wrong::new(self.word.start, self.found(), allowed)
    }

    fn infix(&self) -> Option<(Infix, u8)> {
        use Infix::{And, Coalesce, Concat, Or};
        Some(match &self.word.token {
            Token::Symbol(symbol) => match *symbol {
                "*" => (Infix::Arithmetic(Arithmetic::Multiply), binding::PRODUCT),
                "/" => (Infix::Arithmetic(Arithmetic::Divide), binding::PRODUCT),
                "%" => (Infix::Arithmetic(Arithmetic::Modulo), binding::PRODUCT),
                "+" => (Infix::Arithmetic(Arithmetic::Add), binding::SUM),
                "-" => (Infix::Arithmetic(Arithmetic::Subtract), binding::SUM),
                "||" => (Concat, binding::SUM),
                "<" => (Infix::Compare(Compare::Less), binding::ORDER),
                "<=" => (Infix::Compare(Compare::LessOrEqual), binding::ORDER),
                ">" => (Infix::Compare(Compare::Greater), binding::ORDER),
                ">=" => (Infix::Compare(Compare::GreaterOrEqual), binding::ORDER),
                "=" => (Infix::Compare(Compare::Equal), binding::EQUALITY),
                "!=" | "<>" => (Infix::Compare(Compare::NotEqual), binding::EQUALITY),
                "??" => (Coalesce, binding::COALESCE),
                _ => return None,
            },
            Token::Name(name) if name.eq_ignore_ascii_case("AND") => (And, binding::AND),
            Token::Name(name) if name.eq_ignore_ascii_case("OR") => (Or, binding::OR),
            _ => return None,
        })
    }

    /// Reads operators that bind at least so tightly.
    fn expression(&mut self, least: u8) -> Result<Deep, Wrong> {
        let start = self.word.start;
        let mut left = self.operand()?;
        while let Some((infix, power)) = self.infix().filter(|(_, power)| *power >= least) {
            let operator = self.advance()?;
            let right_start = self.word.start;
            let right = self.expression(power + 1)?;
            left = match infix {
                // A chain is one level, however long: `a OR b OR c …` is how lists are written.
                Infix::And | Infix::Or => {
                    self.need_condition(&left.0, start, &operator)?;
                    self.need_condition(&right.0, right_start, &operator)?;
                    let mut depth = left.1.max(right.1 + 1);
                    let mut parts = vec![left.0, right.0];
                    while let Some((_, _)) = self.infix().filter(|(_, next)| *next == power) {
                        let operator = self.advance()?;
                        let part_start = self.word.start;
                        let (part, part_depth) = self.expression(power + 1)?;
                        self.need_condition(&part, part_start, &operator)?;
                        depth = depth.max(part_depth + 1);
                        parts.push(part);
                    }
                    (if power == binding::AND { Expr::And(parts) } else { Expr::Or(parts) }, depth)
                }
                infix => self.join(infix, left, right, (start, right_start), &operator)?,
            };
            if left.1 > DEPTH_MAX {
                return Err(too_deep(operator.start));
            }
        }
        Ok(left)
    }

    /// Joins two parts by an operator that takes two.
    fn join(
        &self,
        infix: Infix,
        (left, left_depth): Deep,
        (right, right_depth): Deep,
        starts: (usize, usize),
        operator: &Word,
    ) -> Result<Deep, Wrong> {
        let depth = left_depth.max(right_depth) + 1;
        let symbol = &self.text[operator.start..operator.end];
        let expr = match infix {
            Infix::Arithmetic(arithmetic) => {
                for (part, start) in [(&left, starts.0), (&right, starts.1)] {
                    if !kind_of(part).fits(Kind::Number) {
                        let found = format!("{} beside {symbol}", described(part));
                        return Err(Wrong::new(start, found, "only numbers go there; || joins texts"));
                    }
                }
                Expr::Arithmetic(arithmetic, Box::new(left), Box::new(right))
            }
            Infix::Concat => {
                for (part, start) in [(&left, starts.0), (&right, starts.1)] {
                    if !kind_of(part).fits(Kind::Text) {
                        let found = format!("{} beside ||", described(part));
                        return Err(Wrong::new(start, found, "|| joins texts; OR is written OR"));
                    }
                }
                Expr::Call(Function::Concat, vec![left, right])
            }
            Infix::Compare(compare) => {
                if !kind_of(&left).fits(kind_of(&right)) {
                    return Err(incomparable(&left, &right, operator.start));
                }
                Expr::Compare(compare, Box::new(left), Box::new(right))
            }
            Infix::Coalesce => {
                if !kind_of(&left).fits(kind_of(&right)) {
                    let found = format!("{} ?? {}", described(&left), described(&right));
                    let allowed = "both sides must be of one kind; ?? binds last: put it in parentheses";
                    return Err(Wrong::new(operator.start, found, allowed));
                }
                Expr::Coalesce(Box::new(left), Box::new(right))
            }
            Infix::And | Infix::Or => unreachable!("chains are joined where they are read"),
        };
        Ok((expr, depth))
    }

    fn need_condition(&self, part: &Expr, start: usize, operator: &Word) -> Result<(), Wrong> {
        if kind_of(part).is_condition() {
            return Ok(());
        }
        let word = self.text[operator.start..operator.end].to_uppercase();
        let allowed = match word.as_str() {
            "NOT" => "NOT binds more tightly than a comparison: write NOT (a = b)",
            _ => "compare it with something",
        };
        Err(Wrong::new(start, format!("{} beside {word}", described(part)), allowed))
    }

    /// Reads one part with the operators before it.
    fn operand(&mut self) -> Result<Deep, Wrong> {
        const OPERAND: &str = "write a property, $body.path, a text in quotes, a number, or a function";
        // Checked before the recursion; the check below is of the finished expression, which chains of operators deepen too.
        if self.depth > DEPTH_MAX {
            return Err(too_deep(self.word.start));
        }
        self.depth += 1;
        let Word { token, start, .. } = self.word.clone();
        let deep = match token {
            Token::Symbol("-") => {
                self.advance()?;
                let part_start = self.word.start;
                let (part, depth) = self.operand()?;
                if !kind_of(&part).fits(Kind::Number) {
                    return Err(Wrong::new(
                        part_start,
                        format!("{} behind -", described(&part)),
                        "a number goes there",
                    ));
                }
                (Expr::Negate(Box::new(part)), depth + 1)
            }
            Token::Symbol("(") => {
                self.advance()?;
                let (inside, depth) = self.expression(binding::COALESCE)?;
                self.close(start)?;
                (inside, depth + 1)
            }
            Token::Name(name) if name.eq_ignore_ascii_case("NOT") => {
                let operator = self.advance()?;
                let part_start = self.word.start;
                let (part, depth) = self.operand()?;
                self.need_condition(&part, part_start, &operator)?;
                (Expr::Not(Box::new(part)), depth + 1)
            }
            Token::Name(name) => self.name(&name)?,
            Token::Text(text) => self.literal(Value::Text(text.into()))?,
            Token::Number(number) => self.literal(Value::Number(number))?,
            Token::Quoted(name) => {
                self.advance()?;
                (Expr::Reference(Reference::Property(name)), 1)
            }
            Token::Dollar(inside) => {
                self.advance()?;
                (Expr::Reference(Reference::dollar(place(&inside, start + 1)?)), 1)
            }
            Token::Braced(inside) => {
                self.advance()?;
                (Expr::Reference(Reference::Braced(place(&inside, start + 1)?)), 1)
            }
            Token::Symbol(_) | Token::End => return Err(self.unexpected(OPERAND)),
        };
        self.depth -= 1;
        if deep.1 > DEPTH_MAX { Err(too_deep(start)) } else { Ok(deep) }
    }

    fn literal(&mut self, value: Value<'static>) -> Result<Deep, Wrong> {
        self.advance()?;
        Ok((Expr::Literal(value), 1))
    }

    /// A keyword, a function or a property.
    fn name(&mut self, name: &str) -> Result<Deep, Wrong> {
        match name {
            "true" => return self.literal(Value::Bool(true)),
            "false" => return self.literal(Value::Bool(false)),
            "null" => return self.literal(Value::Null),
            "undefined" => return self.literal(Value::Undefined),
            _ => {}
        }
        let lower = name.to_ascii_lowercase();
        // IoT Edge reads `TRUE` as a property of that name, which nobody means (decision 0007).
        if ["true", "false", "null", "undefined"].contains(&lower.as_str()) {
            let allowed = format!("write {lower}, or ['{name}'] for a property of that name");
            return Err(Wrong::new(self.word.start, format!("{name:?}"), allowed));
        }
        if ["and", "or"].contains(&lower.as_str()) {
            return Err(self.unexpected("something to compare goes before it"));
        }
        let word = self.advance()?;
        match self.word.token {
            Token::Symbol("(") => self.call(name, word.start),
            _ => Ok((Expr::Reference(Reference::Property(name.to_owned())), 1)),
        }
    }

    fn call(&mut self, name: &str, start: usize) -> Result<Deep, Wrong> {
        let open = self.advance()?.start;
        if name.eq_ignore_ascii_case("twin_change_includes") {
            return self.twin_change(open);
        }
        let function = Function::by_name(name).ok_or_else(|| {
            let names: Vec<_> = Function::ALL.iter().map(|function| function.name()).collect();
            let allowed = format!("the functions are {} and twin_change_includes", names.join(", "));
            Wrong::new(start, format!("function `{name}`"), allowed)
        })?;
        let (mut arguments, mut depth) = (Vec::new(), 0);
        while self.word.token != Token::Symbol(")") {
            let argument_start = self.word.start;
            let (argument, argument_depth) = self.expression(binding::COALESCE)?;
            let expected = function.argument(arguments.len());
            if !kind_of(&argument).fits(expected) {
                let found = format!(
                    "{} as argument {} of {}",
                    described(&argument),
                    arguments.len() + 1,
                    function.name()
                );
                let expected = if expected == Kind::Number { "a number" } else { "a text" };
                return Err(Wrong::new(argument_start, found, format!("{expected} goes there")));
            }
            depth = depth.max(argument_depth);
            arguments.push(argument);
            match self.word.token {
                Token::Symbol(",") => {
                    self.advance()?;
                    if self.word.token == Token::Symbol(")") {
                        return Err(self.unexpected("an argument goes behind the comma"));
                    }
                }
                Token::Symbol(")") => {}
                Token::End => return Err(unclosed(open)),
                _ => return Err(self.unexpected("write a comma between arguments, and ) behind the last")),
            }
        }
        if !function.takes(arguments.len()) {
            let found = format!("{} in {}", plural(arguments.len()), function.name());
            return Err(Wrong::new(start, found, format!("it takes {}", function.counts())));
        }
        self.advance()?;
        Ok((Expr::Call(function, arguments), depth + 1))
    }

    /// `twin_change_includes` takes a literal path, not an expression.
    fn twin_change(&mut self, open: usize) -> Result<Deep, Wrong> {
        const FORM: &str = "write twin_change_includes(properties.reported.name)";
        let Token::Name(text) = self.word.token.clone() else { return Err(self.unexpected(FORM)) };
        let (section, path) = twin_path(&Path::parse(&text, self.word.start)?)
            .filter(|(_, path)| !path.steps().is_empty())
            .ok_or_else(|| self.unexpected(FORM))?;
        self.advance()?;
        self.close(open)?;
        Ok((Expr::TwinChangeIncludes(section, path), 1))
    }

    fn close(&mut self, open: usize) -> Result<(), Wrong> {
        match self.word.token {
            Token::Symbol(")") => self.advance().map(drop),
            Token::End => Err(unclosed(open)),
            _ => Err(self.unexpected("write an operator, or ) to close the parenthesis")),
        }
    }
}

fn unclosed(open: usize) -> Wrong {
    Wrong::new(open, "a ( without its )", "close it with )")
}

fn too_deep(at: usize) -> Wrong {
    Wrong::new(at, format!("more than {DEPTH_MAX} levels in one another"), "make the condition simpler")
}

fn incomparable(left: &Expr, right: &Expr, at: usize) -> Wrong {
    let found = format!("{} compared with {}", described(left), described(right));
    let kinds = (kind_of(left), kind_of(right));
    let allowed = match kinds {
        (Kind::Property, Kind::Bool) | (Kind::Bool, Kind::Property) => {
            "that is never true: properties are texts, write 'true' or 'false' in quotes"
        }
        (Kind::Null, _) | (_, Kind::Null) => {
            "that is never true: write IS_DEFINED(name) or NOT IS_DEFINED(name)"
        }
        _ => "that is never true: compare what is of one kind; AS_NUMBER(text) makes a number",
    };
    Wrong::new(at, found, allowed)
}

/// What the name after a `$` refers to.
fn place(inside: &str, offset: usize) -> Result<DollarReference, Wrong> {
    const TWIN: &str =
        "write $twin.properties.desired.name, $twin.properties.reported.name or $twin.tags.name";
    let end = inside.find(['.', '[']).unwrap_or(inside.len());
    let (root, rest) = inside.split_at(end);
    if root.eq_ignore_ascii_case("body") {
        return Path::parse(rest, offset + end).map(DollarReference::Body);
    }
    if root.eq_ignore_ascii_case("twin") {
        let path = Path::parse(rest, offset + end)?;
        let (section, path) =
            twin_path(&path).ok_or_else(|| Wrong::new(offset, format!("${inside}"), TWIN))?;
        return Ok(DollarReference::Twin(section, path));
    }
    match inside.find('[') {
        Some(at) => Err(Wrong::new(
            offset + at,
            "a [ in the name of a system property",
            "only $body and $twin have paths",
        )),
        None => Ok(DollarReference::System(inside.to_owned())),
    }
}

/// IoT Hub's `properties.desired`, and `desired` alone.
fn twin_path(path: &Path) -> Option<(TwinSection, Path)> {
    use super::path::PathStep;
    let steps = path.steps();
    let name = |index: usize| match steps.get(index) {
        Some(PathStep::Member(name)) => name.as_str(),
        _ => "",
    };
    let (section, taken) = match (name(0), name(1)) {
        ("properties", "desired") => (TwinSection::Desired, 2),
        ("properties", "reported") => (TwinSection::Reported, 2),
        ("desired", _) => (TwinSection::Desired, 1),
        ("reported", _) => (TwinSection::Reported, 1),
        ("tags", _) => (TwinSection::Tags, 1),
        _ => return None,
    };
    Some((section, Path::new(steps[taken..].to_vec())))
}

fn plural(count: usize) -> String {
    match count {
        0 => "no arguments".to_owned(),
        1 => "1 argument".to_owned(),
        count => format!("{count} arguments"),
    }
}
