//! How a run ends, and what exit status tells it.
//!
//! | status | end                                                                    |
//! |--------|------------------------------------------------------------------------|
//! | 0      | the guest powered off, wrote 0 to the exit port, or Ctrl-A x           |
//! | 1-63   | what the guest wrote to the exit port; 63 stands for everything larger |
//! | 2      | also: the command line, or a file that it names, is not usable         |
//! | 64     | `--timeout` is over                                                    |
//! | 65     | triple fault                                                           |
//! | 66     | the guest resets again and again                                       |
//! | 67     | the CPU is halted and nothing can wake it                              |
//! | 68     | the instructions of `--max-insns` are executed                         |
//! | 69     | the text of `--stop-on-serial` has appeared                            |
//! | 70     | the host failed: output could not be written                           |

use serde::Serialize;

use crate::crash::CrashReport;

/// The status of a wrong command line or an unusable file.
pub const USER_ERROR: u8 = 2;
/// The status of a failure of the host.
pub const HOST_ERROR: u8 = 70;
/// The largest status that the exit port can give.
const EXIT_PORT_MAX: u32 = 63;

/// How a run ended.
#[derive(Debug, Serialize)]
#[serde(tag = "end", rename_all = "kebab-case")]
pub enum End {
    /// The guest switched the power off.
    PowerOff,
    /// The guest wrote to the exit port.
    ExitPort {
        /// What it wrote.
        value: u32,
    },
    /// The user left.
    Quit,
    /// The time limit is over.
    Timeout,
    /// The processor shut down.
    TripleFault {
        /// Why.
        report: Box<CrashReport>,
    },
    /// The guest resets again and again.
    ResetLoop {
        /// How often it did.
        resets: u32,
    },
    /// HLT, and nothing can end it.
    Halted {
        /// Whether interrupts are enabled, but no source of one is.
        interrupts_enabled: bool,
        /// Where.
        report: Box<CrashReport>,
    },
    /// The instruction limit is reached.
    InstructionLimit,
    /// The text has appeared on the serial line.
    StoppedOnSerial,
    /// The host failed.
    HostError {
        /// What failed.
        message: String,
    },
}

impl End {
    /// The exit status.
    pub fn status(&self) -> u8 {
        match self {
            Self::PowerOff | Self::Quit => 0,
            Self::ExitPort { value } => (*value).min(EXIT_PORT_MAX) as u8,
            Self::Timeout => 64,
            Self::TripleFault { .. } => 65,
            Self::ResetLoop { .. } => 66,
            Self::Halted { .. } => 67,
            Self::InstructionLimit => 68,
            Self::StoppedOnSerial => 69,
            Self::HostError { .. } => HOST_ERROR,
        }
    }

    /// A line for the user, about an end that the guest or the user has not asked for.
    pub fn message(&self) -> Option<String> {
        Some(match self {
            Self::PowerOff | Self::ExitPort { .. } | Self::Quit | Self::StoppedOnSerial => {
                return None;
            }
            Self::Timeout => "the time limit is over".into(),
            Self::TripleFault { .. } => "the guest died of a triple fault".into(),
            Self::ResetLoop { resets } => {
                format!("the guest resets again and again: {resets} times without getting further")
            }
            Self::Halted { interrupts_enabled: false, .. } => {
                "the guest halted with interrupts off: nothing can wake it".into()
            }
            Self::Halted { interrupts_enabled: true, .. } => {
                "the guest halted, and no timer or input can wake it".into()
            }
            Self::InstructionLimit => "the instruction limit is reached".into(),
            Self::HostError { message } => message.clone(),
        })
    }

    /// What is known about a guest that died.
    pub fn report(&self) -> Option<&CrashReport> {
        match self {
            Self::TripleFault { report } | Self::Halted { report, .. } => Some(report),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_port_reaches_its_own_statuses_only() {
        let status = |value| End::ExitPort { value }.status();
        assert_eq!([0, 1, 62, 63].map(status), [0, 1, 62, 63]);
        assert_eq!([64, 65, 256, u32::MAX].map(status), [63; 4]);
    }

    #[test]
    fn unwanted_ends_have_statuses_of_their_own_and_say_why() {
        let report = || Box::new(CrashReport::default());
        let ends = [
            End::Timeout,
            End::TripleFault { report: report() },
            End::ResetLoop { resets: 10 },
            End::Halted { interrupts_enabled: false, report: report() },
            End::InstructionLimit,
            End::StoppedOnSerial,
            End::HostError { message: "disk full".into() },
        ];
        let statuses: Vec<u8> = ends.iter().map(End::status).collect();
        assert_eq!(statuses, [64, 65, 66, 67, 68, 69, 70]);
        for end in ends {
            let silent = matches!(end, End::StoppedOnSerial);
            assert_eq!(end.message().is_none(), silent, "{end:?}");
        }
    }
}
