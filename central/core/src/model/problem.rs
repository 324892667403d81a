//! What is wrong with a model, and where.

use std::fmt;

use serde::Serialize;

/// More problems than this are counted, not listed: a document of a megabyte can have a hundred thousand.
pub const PROBLEMS_MAX: usize = 100;

macro_rules! rules {
    ($($rule:ident = $name:literal,)*) => {
        /// A rule of the language, named as Microsoft's parser names it (`dtmi:dtdl:parsingError:…`) where it has the rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Rule { $($rule,)* }

        impl Rule {
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$rule => $name,)* }
            }
        }
    };
}

rules! {
    NotJson = "notJson",
    TooLarge = "documentTooLarge",
    NestedTooDeep = "nestedTooDeep",
    RepeatedMember = "repeatedMember",
    NotJsonObject = "notJsonObject",
    TopLevelGraph = "topLevelGraphDisallowed",
    Graph = "graphDisallowed",
    MissingContext = "missingContext",
    EmptyContext = "emptyContext",
    InvalidContext = "invalidContext",
    MissingDtdlContext = "missingDtdlContext",
    DtdlContextFollowsAffiliate = "dtdlContextFollowsAffiliate",
    LocalContext = "disallowedLocalContext",
    LocalContextNotLast = "localContextNotLast",
    ContextFragment = "disallowedContextFragment",
    MissingContextVersion = "missingContextVersion",
    UnrecognizedContextVersion = "unrecognizedContextVersion",
    InvalidContextSpecifierForVersion = "invalidContextSpecifierForVersion",
    NonDtmiContext = "nonDtmiContextSpecifier",
    InvalidContextSpecifier = "invalidContextSpecifier",
    UnresolvableContext = "unresolvableContextSpecifier",
    UnresolvableContextVersion = "unresolvableContextVersion",
    MissingTopLevelId = "missingTopLevelId",
    MissingRequiredId = "missingRequiredId",
    IdNotString = "idNotString",
    IdTooLong = "idTooLong",
    IdTooLongForType = "idTooLongForType",
    InvalidId = "invalidId",
    ReservedId = "reservedId",
    IdReference = "idReference",
    MissingNameForId = "missingDtmiSegPropertyValue",
    DuplicateDefinition = "duplicateDefinition",
    TypeNotRootable = "typeNotRootable",
    BadType = "badType",
    MultipleMaterialTypes = "multipleMaterialTypes",
    TypeInvalidDtmi = "typeInvalidDtmi",
    TypeIrrelevant = "typeIrrelevantDtmiOrTerm",
    AbstractType = "abstractSupplementalType",
    InvalidCotype = "invalidCotype",
    InvalidCotypeVersion = "invalidCotypeVersion",
    ConflictingTypes = "conflictingSupplementalTypes",
    NoTypeThatAllows = "noTypeThatAllows",
    InferredTypeDoesNotAllow = "inferredTypeDoesNotAllow",
    DuplicatePropertyName = "duplicatePropertyName",
    MissingLiteralProperty = "missingLiteralProperty",
    MissingObjectProperty = "missingObjectProperty",
    MissingUnit = "missingSupplementalObjectProperty",
    RefNotStringOrObject = "refNotStringOrObject",
    BadDtmiOrTerm = "badDtmiOrTerm",
    ObjectMultipleValues = "objectMultipleValues",
    ObjectCountBelowMin = "objectCountBelowMin",
    ObjectCountAboveMax = "objectCountAboveMax",
    IncorrectPropertyValue = "incorrectPropertyValue",
    StringNotString = "stringNotString",
    StringMultipleValues = "stringMultipleValues",
    StringCountBelowMin = "stringCountBelowMin",
    StringTooLong = "stringTooLong",
    StringInvalid = "stringInvalid",
    IntegerNotInteger = "integerNotInteger",
    IntegerMultipleValues = "integerMultipleValues",
    IntegerCountBelowMin = "integerCountBelowMin",
    ValueNotExact = "valueNotExact",
    ValueBelowRange = "valueBelowRange",
    ValueAboveRange = "valueAboveRange",
    BooleanNotBoolean = "booleanNotBoolean",
    BooleanMultipleValues = "booleanMultipleValues",
    BooleanCountBelowMin = "booleanCountBelowMin",
    IdentifierNotString = "identifierNotString",
    IdentifierNotDtmi = "identifierNotDtmi",
    IdentifierMultipleValues = "identifierMultipleValues",
    IdentifierCountBelowMin = "identifierCountBelowMin",
    LiteralNotValid = "literalNotValid",
    LiteralMultipleValues = "literalMultipleValues",
    LiteralCountBelowMin = "literalCountBelowMin",
    LiteralTypeNotSingular = "literalTypeNotSingular",
    StringTypeNotString = "stringTypeNotString",
    StringValueNotString = "stringValueNotString",
    StringObjectNoValue = "stringObjectNoValue",
    IntegerTypeNotInteger = "integerTypeNotInteger",
    IntegerValueNotInteger = "integerValueNotInteger",
    IntegerObjectNoValue = "integerObjectNoValue",
    BooleanTypeNotBoolean = "booleanTypeNotBoolean",
    BooleanValueNotBoolean = "booleanValueNotBoolean",
    BooleanObjectNoValue = "booleanObjectNoValue",
    LiteralObjectNoValue = "literalObjectNoValue",
    ValueObjectContext = "valueObjectContext",
    ValueObjectId = "valueObjectId",
    ValueObjectGraph = "valueObjectGraph",
    ValueObjectInvalidProperty = "valueObjectInvalidProp",
    NonConformantDatatype = "nonConformantDatatype",
    LangStringNotLangString = "langStringNotLangString",
    LangMapKeyword = "langMapObjKeyword",
    LangTagValueInLangMap = "langTagValueInLangMap",
    LangStringInvalidCode = "langStringInvalidCode",
    LangStringValueNotString = "langStringValueNotString",
    LangStringValueTooLong = "langStringValueTooLong",
    LangElementNotStringOrObject = "langStringElementNotStringOrObject",
    LangElementContext = "langStringElementContext",
    LangElementId = "langStringElementId",
    LangElementGraph = "langStringElementGraph",
    LangElementInvalidProperty = "langStringElementInvalidProp",
    LangElementNoValue = "langStringElementNoValue",
    LangElementValueNotString = "langStringElementValueNotString",
    LangElementCodeNotString = "langStringElementCodeNotString",
    LangElementInvalidCode = "langStringElementInvalidCode",
    LangElementCodeNotUnique = "langStringElementCodeNotUnique",
    NonUniquePropertyValue = "nonUniquePropertyValue",
    NonUniqueImportedPropertyValue = "nonUniqueImportedPropertyValue",
    UndefinedId = "undefinedIdentifier",
    UndefinedReservedId = "undefinedReservedId",
    CrossPartitionReference = "crossPartitionReference",
    RecursiveExtends = "recursiveStructureNarrow",
    RecursiveSchema = "recursiveStructureWide",
    ExtendsTooDeep = "excessiveDepthNarrow",
    SchemaTooDeep = "excessiveDepthWide",
    ExcludedType = "excludedType",
    SchemaNotRequiredType = "notRequiredType",
    SchemaNotRequiredValue = "notRequiredValue",
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The `@id` of the element, its own or one that was made for it; `None` where there is none yet.
    pub element: Option<String>,
    /// Position of the element or its property in the document: `contents[2].schema`.
    pub path: String,
    #[serde(serialize_with = "as_name")]
    pub rule: Rule,
    /// What is wrong and what is allowed, in a sentence.
    pub message: String,
}

fn as_name<S: serde::Serializer>(rule: &Rule, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(rule.as_str())
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}", self.path)?;
            if let Some(element) = &self.element {
                write!(f, " ({element})")?;
            }
            f.write_str(": ")?;
        } else if let Some(element) = &self.element {
            write!(f, "{element}: ")?;
        }
        write!(f, "{} [{}]", self.message, self.rule.as_str())
    }
}

/// The problems of a document, the first [`PROBLEMS_MAX`] of them with a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    pub reported: Vec<Problem>,
    /// How many more there are.
    pub more: usize,
}

impl Problems {
    pub fn add(&mut self, element: Option<&str>, path: &str, rule: Rule, message: impl Into<String>) {
        if self.reported.len() >= PROBLEMS_MAX {
            self.more += 1;
            return;
        }
        let element = element.map(str::to_owned);
        self.reported.push(Problem { element, path: path.to_owned(), rule, message: message.into() });
    }

    pub fn is_empty(&self) -> bool {
        self.reported.is_empty()
    }

    /// How many there are, listed or not.
    pub fn count(&self) -> usize {
        self.reported.len() + self.more
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.reported.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{problem}")?;
        }
        if self.more > 0 {
            write!(f, "; and {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
