//! What the values of one frame or message may cost.

/// Bounds of reading. A list in a list is two levels; each element counts as a value, and so does the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimits {
    /// Levels of lists, maps, arrays and described values. Reading, writing and dropping a value use the stack once for each level.
    pub depth_max: u8,
    /// Values of all levels together. A value takes 40 bytes in memory and can be a single byte, or none inside an array, on the
    /// wire.
    pub values_max: u32,
}

impl ReadLimits {
    /// For peers of any kind. The deepest value of the specification, an outcome's annotations in a source of an attach, has 6
    /// levels. 4,096 values are 160 KiB in memory, and twice as many properties as one message of MQTT can have.
    pub const DEFAULT: Self = Self { depth_max: 16, values_max: 4096 };
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
