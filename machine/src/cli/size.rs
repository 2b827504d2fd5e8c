//! Sizes of memory as users write them.

/// Parses a size: a whole number with K, M or G (either case); without, it is in MiB.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "K" => 10,
        "" | "M" => 20,
        "G" => 30,
        _ => return Err("the units are K, M and G".into()),
    };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err("give a whole number and a unit, such as 512M".into());
    }
    let number: Option<u64> = digits.parse().ok();
    number.and_then(|number| number.checked_mul(1 << shift)).ok_or("it is too large".into())
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn units_are_powers_of_two() {
        assert_eq!(parse_size("640K"), Ok(640 << 10));
        assert_eq!(parse_size("512m"), Ok(512 << 20));
        assert_eq!(parse_size("4G"), Ok(4 << 30));
        assert_eq!(parse_size("128"), Ok(128 << 20));
        assert_eq!(parse_size("0"), Ok(0));
    }

    #[test]
    fn everything_else_is_refused() {
        for wrong in ["", "M", "12Q", "512 M", "1.5G", "-5M", "+5M", "17T", "5MB", "٣M"] {
            assert!(parse_size(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(parse_size("99999999999999999999M"), Err("it is too large".into()));
        assert_eq!(parse_size("17179869184G"), Err("it is too large".into()));
    }
}
