//! Semantic types and their units: a Temperature is measured in degrees, an Event has a severity.

use super::context::IOT_CENTRAL;
use super::dtmi::of_iri;

/// What a semantic type asks of the element that has it.
#[derive(Debug, PartialEq, Eq)]
pub enum Constraint {
    /// A numeric schema, and a unit of this type.
    Quantity { unit_type: &'static str },
    /// IoT Central: one of these schemas, by term; a unit of this type may be given.
    Schema { schemas: &'static [&'static str], unit_type: Option<&'static str> },
    /// IoT Central: an Enum.
    Enumeration,
}

/// A type beside Telemetry or Property.
#[derive(Debug, PartialEq, Eq)]
pub struct SemanticType {
    pub name: &'static str,
    pub constraint: Constraint,
}

impl SemanticType {
    /// The type that the element's unit has, when it can have one.
    pub fn unit_type(&self) -> Option<&'static str> {
        match self.constraint {
            Constraint::Quantity { unit_type } => Some(unit_type),
            Constraint::Schema { unit_type, .. } => unit_type,
            Constraint::Enumeration => None,
        }
    }
}

const fn quantity(name: &'static str, unit_type: &'static str) -> SemanticType {
    SemanticType { name, constraint: Constraint::Quantity { unit_type } }
}

const fn of_schemas(
    name: &'static str,
    schemas: &'static [&'static str],
    unit_type: Option<&'static str>,
) -> SemanticType {
    SemanticType { name, constraint: Constraint::Schema { schemas, unit_type } }
}

/// The quantities of the language.
static QUANTITIES: [SemanticType; 42] = [
    quantity("Acceleration", "AccelerationUnit"),
    quantity("Angle", "AngleUnit"),
    quantity("AngularAcceleration", "AngularAccelerationUnit"),
    quantity("AngularVelocity", "AngularVelocityUnit"),
    quantity("Area", "AreaUnit"),
    quantity("Capacitance", "CapacitanceUnit"),
    quantity("Current", "CurrentUnit"),
    quantity("DataRate", "DataRateUnit"),
    quantity("DataSize", "DataSizeUnit"),
    quantity("Density", "DensityUnit"),
    quantity("Distance", "LengthUnit"),
    quantity("ElectricCharge", "ChargeUnit"),
    quantity("Energy", "EnergyUnit"),
    quantity("Force", "ForceUnit"),
    quantity("Frequency", "FrequencyUnit"),
    quantity("Humidity", "DensityUnit"),
    quantity("Illuminance", "IlluminanceUnit"),
    quantity("Inductance", "InductanceUnit"),
    quantity("Latitude", "AngleUnit"),
    quantity("Length", "LengthUnit"),
    quantity("Longitude", "AngleUnit"),
    quantity("Luminance", "LuminanceUnit"),
    quantity("Luminosity", "PowerUnit"),
    quantity("LuminousFlux", "LuminousFluxUnit"),
    quantity("LuminousIntensity", "LuminousIntensityUnit"),
    quantity("MagneticFlux", "MagneticFluxUnit"),
    quantity("MagneticInduction", "MagneticInductionUnit"),
    quantity("Mass", "MassUnit"),
    quantity("MassFlowRate", "MassFlowRateUnit"),
    quantity("Power", "PowerUnit"),
    quantity("Pressure", "PressureUnit"),
    quantity("RelativeHumidity", "Unitless"),
    quantity("Resistance", "ResistanceUnit"),
    quantity("SoundPressure", "SoundPressureUnit"),
    quantity("Temperature", "TemperatureUnit"),
    quantity("Thrust", "ForceUnit"),
    quantity("TimeSpan", "TimeUnit"),
    quantity("Torque", "TorqueUnit"),
    quantity("Velocity", "VelocityUnit"),
    quantity("Voltage", "VoltageUnit"),
    quantity("Volume", "VolumeUnit"),
    quantity("VolumeFlowRate", "VolumeFlowRateUnit"),
];

/// The semantic types of IoT Central's extension.
static OF_IOT_CENTRAL: [SemanticType; 5] = [
    of_schemas("AccelerationVector", &["vector"], Some("AccelerationUnit")),
    of_schemas("VelocityVector", &["vector"], Some("VelocityUnit")),
    of_schemas("Event", &["double", "float", "integer", "long", "string"], None),
    of_schemas(
        "Location",
        &["point", "multiPoint", "lineString", "multiLineString", "polygon", "multiPolygon", "geopoint"],
        None,
    ),
    SemanticType { name: "State", constraint: Constraint::Enumeration },
];

/// The units, by type.
pub const UNITS: [(&str, &[&str]); 36] = [
    ("AccelerationUnit", &["centimetrePerSecondSquared", "gForce", "metrePerSecondSquared"]),
    ("AngleUnit", &["degreeOfArc", "minuteOfArc", "radian", "secondOfArc", "turn"]),
    ("AngularAccelerationUnit", &["radianPerSecondSquared"]),
    (
        "AngularVelocityUnit",
        &["degreePerSecond", "radianPerSecond", "revolutionPerMinute", "revolutionPerSecond"],
    ),
    (
        "AreaUnit",
        &[
            "acre",
            "hectare",
            "squareCentimetre",
            "squareFoot",
            "squareInch",
            "squareKilometre",
            "squareMetre",
            "squareMillimetre",
        ],
    ),
    ("CapacitanceUnit", &["farad", "microfarad", "millifarad", "nanofarad", "picofarad"]),
    ("ChargeUnit", &["coulomb"]),
    ("CurrentUnit", &["ampere", "microampere", "milliampere"]),
    (
        "DataRateUnit",
        &[
            "bitPerSecond",
            "bytePerSecond",
            "exbibitPerSecond",
            "exbibytePerSecond",
            "gibibitPerSecond",
            "gibibytePerSecond",
            "kibibitPerSecond",
            "kibibytePerSecond",
            "mebibitPerSecond",
            "mebibytePerSecond",
            "tebibitPerSecond",
            "tebibytePerSecond",
            "yobibitPerSecond",
            "yobibytePerSecond",
            "zebibitPerSecond",
            "zebibytePerSecond",
        ],
    ),
    (
        "DataSizeUnit",
        &[
            "bit", "byte", "exbibit", "exbibyte", "gibibit", "gibibyte", "kibibit", "kibibyte", "mebibit",
            "mebibyte", "tebibit", "tebibyte", "yobibit", "yobibyte", "zebibit", "zebibyte",
        ],
    ),
    ("DensityUnit", &["gramPerCubicMetre", "kilogramPerCubicMetre"]),
    (
        "EnergyUnit",
        &["electronvolt", "gigajoule", "joule", "kilojoule", "kilowattHour", "megaelectronvolt", "megajoule"],
    ),
    ("ForceUnit", &["newton", "ounce", "pound", "ton"]),
    ("FrequencyUnit", &["gigahertz", "hertz", "kilohertz", "megahertz"]),
    ("IlluminanceUnit", &["footcandle", "lux"]),
    ("InductanceUnit", &["henry", "microhenry", "millihenry"]),
    (
        "LengthUnit",
        &[
            "astronomicalUnit",
            "centimetre",
            "foot",
            "inch",
            "kilometre",
            "metre",
            "micrometre",
            "mile",
            "millimetre",
            "nanometre",
            "nauticalMile",
        ],
    ),
    ("LuminanceUnit", &["candelaPerSquareMetre"]),
    ("LuminousFluxUnit", &["lumen"]),
    ("LuminousIntensityUnit", &["candela"]),
    ("MagneticFluxUnit", &["maxwell", "weber"]),
    ("MagneticInductionUnit", &["tesla"]),
    ("MassFlowRateUnit", &["gramPerHour", "gramPerSecond", "kilogramPerHour", "kilogramPerSecond"]),
    ("MassUnit", &["gram", "kilogram", "microgram", "milligram", "slug", "tonne"]),
    (
        "PowerUnit",
        &[
            "gigawatt",
            "horsepower",
            "kilowatt",
            "kilowattHourPerYear",
            "megawatt",
            "microwatt",
            "milliwatt",
            "watt",
        ],
    ),
    (
        "PressureUnit",
        &[
            "bar",
            "inchesOfMercury",
            "inchesOfWater",
            "kilopascal",
            "millibar",
            "millimetresOfMercury",
            "pascal",
            "poundPerSquareInch",
        ],
    ),
    ("ResistanceUnit", &["kiloohm", "megaohm", "milliohm", "ohm"]),
    ("SoundPressureUnit", &["bel", "decibel"]),
    ("TemperatureUnit", &["degreeCelsius", "degreeFahrenheit", "kelvin"]),
    ("TimeUnit", &["day", "hour", "microsecond", "millisecond", "minute", "nanosecond", "second", "year"]),
    ("TorqueUnit", &["newtonMetre"]),
    ("Unitless", &["percent", "unity"]),
    (
        "VelocityUnit",
        &[
            "centimetrePerSecond",
            "kilometrePerHour",
            "kilometrePerSecond",
            "knot",
            "metrePerHour",
            "metrePerSecond",
            "milePerHour",
            "milePerSecond",
        ],
    ),
    ("VoltageUnit", &["kilovolt", "megavolt", "microvolt", "millivolt", "volt"]),
    ("VolumeFlowRateUnit", &["litrePerHour", "litrePerSecond", "millilitrePerHour", "millilitrePerSecond"]),
    (
        "VolumeUnit",
        &[
            "cubicCentimetre",
            "cubicFoot",
            "cubicInch",
            "cubicMetre",
            "fluidOunce",
            "gallon",
            "litre",
            "millilitre",
        ],
    ),
];
const PREFIXES: [&str; 28] = [
    "atto", "centi", "deci", "deka", "exa", "exbi", "femto", "gibi", "giga", "hecto", "kibi", "kilo", "mebi",
    "mega", "micro", "milli", "nano", "pebi", "peta", "pico", "tebi", "tera", "yobi", "yocto", "yotta",
    "zebi", "zepto", "zetta",
];

/// Types of units, which no element of a model has.
const UNIT_CLASSES: [&str; 2] = ["BinaryPrefix", "DecimalPrefix"];
/// Types that only others are made of.
const ABSTRACT: [&str; 3] = ["QuantitativeType", "SemanticType", "SemanticUnit"];
/// Types that units have beside their own.
const OF_UNITS: [&str; 3] = ["BinaryUnit", "DecimalUnit", "RatioUnit"];
/// Types of other extensions of the language, which are for later versions.
const OF_LATER_VERSIONS: [(&str, &str); 2] = [
    ("Historized", "dtmi:dtdl:extension:historization"),
    ("ValueAnnotation", "dtmi:dtdl:extension:annotation"),
];

/// What a name or IRI in `@type` that is no class stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeTerm {
    Semantic(&'static SemanticType),
    Abstract,
    /// A type of units: no element of a model has it.
    Unit,
    /// A type beside those of units.
    BesideUnit,
    LaterVersion,
}

/// The type of that name or IRI. `extensions` are the contexts that are active beside the language's own.
pub fn type_term(text: &str, extensions: &[&str]) -> Option<TypeTerm> {
    let has = |context: &str| extensions.contains(&context);
    // A term has no colon: an IRI with another prefix must not be read as a term.
    if let Some(name) = of_iri("dtmi:standard:class:", text).or_else(|| is_term(text).then_some(text)) {
        let quantity = QUANTITIES.iter().find(|known| known.name == name);
        if let Some(quantity) = quantity {
            return Some(TypeTerm::Semantic(quantity));
        }
        if UNIT_CLASSES.contains(&name) || UNITS.iter().any(|(known, _)| *known == name) {
            return Some(TypeTerm::Unit);
        }
        if OF_UNITS.contains(&name) {
            return Some(TypeTerm::BesideUnit);
        }
        if name == ABSTRACT[0] {
            return Some(TypeTerm::Abstract);
        }
    }
    let name = of_iri("dtmi:dtdl:class:", text).unwrap_or(text);
    if ABSTRACT[1..].contains(&name) {
        return Some(TypeTerm::Abstract);
    }
    // A bare name counts only where the document has IoT Central's context.
    let of_iot_central = of_iri("dtmi:iotcentral:class:", text).or_else(|| has(IOT_CENTRAL).then_some(text));
    if let Some(known) = OF_IOT_CENTRAL.iter().find(|known| Some(known.name) == of_iot_central) {
        return Some(TypeTerm::Semantic(known));
    }
    let is_later = |(name, context): &(&str, &str)| *name == text && has(context);
    OF_LATER_VERSIONS.iter().any(is_later).then_some(TypeTerm::LaterVersion)
}

fn is_term(text: &str) -> bool {
    !text.contains(':')
}

/// The type of a unit, by term or IRI.
pub fn unit(text: &str) -> Option<(&'static str, &'static str)> {
    let name = of_iri("dtmi:standard:unit:", text).unwrap_or(text);
    UNITS.iter().find_map(|(unit_type, units)| {
        units.iter().find(|unit| **unit == name).map(|unit| (*unit, *unit_type))
    })
}

/// Returns true for a term that names a unit or a prefix of units.
pub fn is_unit_or_prefix(text: &str) -> bool {
    PREFIXES.contains(&text) || (is_term(text) && unit(text).is_some())
}
