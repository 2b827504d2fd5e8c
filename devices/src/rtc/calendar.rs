//! The proleptic Gregorian calendar.

const SECONDS_PER_DAY: i64 = 86_400;

/// A date and a time of day, as the chip's bytes show them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DateTime {
    second: u8,
    minute: u8,
    pub(super) hour: u8,
    /// 1 is Sunday.
    weekday: u8,
    day: u8,
    month: u8,
    /// Within the century.
    year: u8,
    century: u8,
}

impl DateTime {
    pub(super) fn from_unix(seconds: i64) -> Self {
        let days = seconds.div_euclid(SECONDS_PER_DAY);
        let of_day = seconds.rem_euclid(SECONDS_PER_DAY);
        let (year, month, day) = date_of(days);
        Self {
            second: (of_day % 60) as u8,
            minute: (of_day / 60 % 60) as u8,
            hour: (of_day / 3600) as u8,
            // 1970-01-01 was a Thursday.
            weekday: (days + 4).rem_euclid(7) as u8 + 1,
            day,
            month,
            year: year.rem_euclid(100) as u8,
            century: year.div_euclid(100).rem_euclid(100) as u8,
        }
    }

    /// The Unix time. What no calendar has (the guest may set month 77) counts on from the year's
    /// and the month's start.
    pub(super) fn to_unix(self) -> i64 {
        let year = i64::from(self.century) * 100 + i64::from(self.year);
        let month = i64::from(self.month) - 1;
        let first = days_before(year + month.div_euclid(12), month.rem_euclid(12));
        let days = first + i64::from(self.day) - 1;
        let minutes = i64::from(self.hour) * 60 + i64::from(self.minute);
        days * SECONDS_PER_DAY + minutes * 60 + i64::from(self.second)
    }

    /// Second, minute, hour, weekday, day, month, year, century.
    pub(super) fn fields(self) -> [u8; 8] {
        let Self { second, minute, hour, weekday, day, month, year, century } = self;
        [second, minute, hour, weekday, day, month, year, century]
    }

    pub(super) fn from_fields(fields: [u8; 8]) -> Self {
        let [second, minute, hour, weekday, day, month, year, century] = fields;
        Self { second, minute, hour, weekday, day, month, year, century }
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn month_length(year: i64, month: i64) -> i64 {
    match month {
        1 if is_leap(year) => 29,
        1 => 28,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to the first of a month; January is 0.
fn days_before(year: i64, month: i64) -> i64 {
    let leap_days = |before: i64| {
        let last = before - 1;
        last.div_euclid(4) - last.div_euclid(100) + last.div_euclid(400)
    };
    let year_start = 365 * (year - 1970) + leap_days(year) - leap_days(1970);
    year_start + (0..month).map(|month| month_length(year, month)).sum::<i64>()
}

/// The year, the month (January is 1) and the day of a day counted from 1970-01-01.
fn date_of(days: i64) -> (i64, u8, u8) {
    // 400 years have 146 097 days; the estimate is off by at most one year.
    let estimate = 1970 + (days * 400).div_euclid(146_097);
    let year = [estimate + 1, estimate]
        .into_iter()
        .find(|&year| days_before(year, 0) <= days)
        .unwrap_or(estimate - 1);
    let mut day = days - days_before(year, 0);
    let mut month = 0;
    while day >= month_length(year, month) {
        day -= month_length(year, month);
        month += 1;
    }
    (year, month as u8 + 1, day as u8 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        for (seconds, fields) in [
            (0, [0, 0, 0, 5, 1, 1, 70, 19]),
            (951_782_400, [0, 0, 0, 3, 29, 2, 0, 20]),
            (1_795_305_598, [58, 59, 23, 7, 21, 11, 26, 20]),
            (4_107_542_400, [0, 0, 0, 2, 1, 3, 0, 21]),
            (-1, [59, 59, 23, 4, 31, 12, 69, 19]),
        ] {
            assert_eq!(DateTime::from_unix(seconds).fields(), fields, "{seconds}");
        }
    }

    #[test]
    fn every_day_of_1000_years_survives_the_round_trip() {
        let mut weekday = DateTime::from_unix(-182_500 * SECONDS_PER_DAY).weekday;
        for day in -182_500..182_500 {
            let time = DateTime::from_unix(day * SECONDS_PER_DAY);
            assert_eq!(time.to_unix(), day * SECONDS_PER_DAY, "{time:?}");
            assert_eq!(time.weekday, weekday);
            weekday = weekday % 7 + 1;
        }
    }

    #[test]
    fn impossible_dates_do_not_panic() {
        for byte in 0..=u8::MAX {
            DateTime::from_fields([byte; 8]).to_unix();
        }
    }
}
