//! Numbers and ranges as people write them: hexadecimal with 0x, otherwise decimal.

use std::ops::RangeInclusive;

/// A number.
pub(super) fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text:?} is not a number"))
}

/// One number, or two with a hyphen between them.
pub(super) fn range(text: &str) -> Result<RangeInclusive<u64>, String> {
    match text.split_once('-') {
        None => number(text).map(|number| number..=number),
        Some((first, last)) => {
            let range = number(first)?..=number(last)?;
            if range.is_empty() { Err("the range is empty".into()) } else { Ok(range) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        assert_eq!(number("10"), Ok(10));
        assert_eq!(number("0x10"), Ok(16));
        assert_eq!(range("0x3f8-0x3ff"), Ok(0x3f8..=0x3ff));
        assert_eq!(range("7"), Ok(7..=7));
        for wrong in ["", "x", "0x", "-1", "1-", "5-4"] {
            assert!(range(wrong).is_err(), "{wrong:?}");
        }
    }
}
