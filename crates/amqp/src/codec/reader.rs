//! A position in bytes, and what reading them has cost so far.

use bytes::{Buf as _, Bytes};

use super::error::DecodeError;
use super::limits::ReadLimits;

/// Reads the bytes of one frame or message from front to back. The depth and number of its values are bounded together.
#[derive(Debug)]
pub(crate) struct Reader {
    rest: Bytes,
    limits: ReadLimits,
    depth: u8,
    values: u32,
}

impl Reader {
    /// At the first byte.
    pub(crate) fn new(bytes: Bytes, limits: ReadLimits) -> Self {
        Self { rest: bytes, limits, depth: 0, values: 0 }
    }

    /// Returns true if all bytes are read.
    pub(crate) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The bytes that are not read yet.
    pub(crate) fn into_rest(self) -> Bytes {
        self.rest
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.rest.try_get_u8().map_err(|_| DecodeError::Truncated)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.rest.try_get_u32().map_err(|_| DecodeError::Truncated)
    }

    pub(super) fn array<const BYTES: usize>(&mut self) -> Result<[u8; BYTES], DecodeError> {
        let (&array, _) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest.advance(BYTES);
        Ok(array)
    }

    /// Takes bytes without copying them.
    pub(super) fn take(&mut self, bytes: usize) -> Result<Bytes, DecodeError> {
        if bytes > self.rest.len() { Err(DecodeError::Truncated) } else { Ok(self.rest.split_to(bytes)) }
    }

    /// The format code of the next value, which counts against the limit.
    pub(super) fn format_code(&mut self) -> Result<u8, DecodeError> {
        self.count_value()?;
        self.u8()
    }

    /// Counts a value that has no format code of its own: an element of an array.
    pub(super) fn count_value(&mut self) -> Result<(), DecodeError> {
        if self.values >= self.limits.values_max {
            return Err(DecodeError::TooManyValues(self.limits.values_max));
        }
        self.values += 1;
        Ok(())
    }

    /// Reads what is inside a list, map, array or described value.
    pub(super) fn nested<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        if self.depth >= self.limits.depth_max {
            return Err(DecodeError::TooDeep(self.limits.depth_max));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// Reads `size` bytes, all of them. What is inside may read beyond them before that is found: never beyond this reader's end.
    pub(super) fn sized<T>(
        &mut self,
        size: usize,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let after = self.rest.len().checked_sub(size).ok_or(DecodeError::Truncated)?;
        let value = read(self)?;
        if self.rest.len() == after {
            Ok(value)
        } else {
            Err(DecodeError::Malformed("the size of a list, map or array is not that of its elements"))
        }
    }
}
